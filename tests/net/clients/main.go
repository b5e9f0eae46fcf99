// An agent in Go, with what net/http does by itself: arguments are URLs and bodies in turn; each is posted, and a line
// says what came of it: [status, body], or null.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func post(url, body string) any {
	answer, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	defer answer.Body.Close()
	told, err := io.ReadAll(answer.Body)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	return []any{answer.StatusCode, string(told)}
}

func main() {
	for at := 1; at+1 < len(os.Args); at += 2 {
		_ = json.NewEncoder(os.Stdout).Encode(post(os.Args[at], os.Args[at+1]))
	}
}
