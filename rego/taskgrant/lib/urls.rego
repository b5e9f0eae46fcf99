package taskgrant.lib

# METADATA
# title: The host of an http(s) URL, in lower case, without a port
# description: |
#   Undefined for anything that two readers could understand differently: user information, backslashes, blanks, control
#   characters, percent signs or non-ASCII letters before the path, a trailing dot. IPv6 hosts come without brackets.
url_host(url) := trim(lower(found[0][1]), "[]") if {
	found := regex.find_all_string_submatch_n(_url, url, 1)
	count(found) == 1
	not regex.match(`[\\\x00-\x20\x7f]`, url)
}

_url := `^(?i:https?)://([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#]|$)`

# METADATA
# title: True if the URL's host is one of these, exactly
url_host_in(url, hosts) if {
	host := url_host(url)
	host in {lower(each) | some each in hosts}
}

# METADATA
# title: True if the URL's host is this domain or below it
url_host_under(url, domain) if url_host(url) == lower(domain)

url_host_under(url, domain) if endswith(url_host(url), concat("", [".", lower(domain)]))

# METADATA
# title: True if the URL's host is an IP address, written out, inside the CIDR
# description: |
#   A name is never inside: what it resolves to is not known here. IPv4 in any form but four plain decimal numbers is not
#   an address here either (clients read `0177.1` and `2130706433` as addresses too).
url_in_cidr(url, cidr) if {
	host := url_host(url)
	_is_address(host)
	net.cidr_contains(cidr, host)
}

_is_address(host) if regex.match(`^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.|$)){4}$`, host)

_is_address(host) if {
	contains(host, ":")
	net.cidr_is_valid(concat("", [host, "/128"]))
}

# METADATA
# title: The domain of one mail address, in lower case
# description: Undefined for a list, a display name, a quoted or a non-ASCII address.
email_domain(address) := lower(found[0][1]) if {
	found := regex.find_all_string_submatch_n(_email, address, 1)
	count(found) == 1
}

_email := `^[A-Za-z0-9.!#$&'*+/=?^_{|}~-]+@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)$`
