import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

/** The same as main.go, with java.net.http as it is. Bodies of answers are JSON already. */
public class Client {
    public static void main(String[] given) throws InterruptedException {
        HttpClient client = HttpClient.newHttpClient();
        for (int at = 0; at + 1 < given.length; at += 2) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(given[at]))
                .header("content-type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(given[at + 1]))
                .build();
            try {
                var answer = client.send(request, BodyHandlers.ofString());
                String told = answer.body().replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n");
                System.out.println("[" + answer.statusCode() + ", \"" + told + "\"]");
            } catch (IOException error) {
                System.err.println(error);
                System.out.println("null");
            }
        }
    }
}
