package taskgrant.lib_test

import data.taskgrant.lib

test_profile if {
	lib.profile("mail", "send") == {}
	lib.profile("mail", "send") == {"ask": true} with data.taskgrant.profiles as {"mail/send": {"ask": true}}
}

test_path_inside if {
	every path in ["/srv/data", "/srv/data/", "/srv/data/a/b", "/srv//data/./a", "/srv/data/..a", "/srv/data/a b"] {
		lib.path_inside(path, "/srv/data")
	}
	lib.path_inside("/anything", "/")
	every path in [
		"/srv", "/srv/database", "/srv/data/../x", "/srv/data/..", "srv/data/a", "", "/srv/data/%2e%2e/x",
		`/srv/data/..\x`, "/srv/data/a\u0000", "/SRV/data/a", 7, null,
	] {
		not lib.path_inside(path, "/srv/data")
	}
	not lib.path_inside("/srv/data", "srv/data")
	not lib.path_inside("/srv/x/data", "/srv/x/../data")
}

test_url_host if {
	lib.url_host("https://API.example.org:8443/x?y") == "api.example.org"
	lib.url_host("http://[2001:DB8::1]/") == "2001:db8::1"
	lib.url_host("https://example.org") == "example.org"
	every url in [
		"https://example.org@evil.example/", `https://example.org\@evil.example/`, "https://example.org%2eevil.example/",
		"ftp://example.org/", "//example.org/", "https:///example.org", "https://example.org./", "https://exa mple.org/",
		"https://example.org/\n", "https://еxample.org/", "https://example.org:123456/", "",
	] {
		not lib.url_host(url)
	}
}

test_url_hosts if {
	lib.url_host_in("https://a.example.org/x", {"A.example.org"})
	not lib.url_host_in("https://a.example.org.evil.example/x", {"a.example.org"})
	lib.url_host_under("https://example.org/", "example.org")
	lib.url_host_under("https://a.b.example.org/", "Example.org")
	not lib.url_host_under("https://evilexample.org/", "example.org")
}

test_url_in_cidr if {
	lib.url_in_cidr("http://10.1.2.3/x", "10.0.0.0/8")
	lib.url_in_cidr("http://[2001:db8::1]:80/x", "2001:db8::/32")
	every url in [
		"http://11.0.0.1/", "http://0177.0.0.1/", "http://2130706433/", "http://10.1.2.3.evil.example/", "http://10.1/",
		"http://name.example/", "http://[2001:db9::1]/", "http://[:::]/", "http://010.1.2.3/",
	] {
		not lib.url_in_cidr(url, "10.0.0.0/8")
	}
}

test_email_domain if {
	lib.email_domain("A.b+c@Example.ORG") == "example.org"
	every address in [
		"a@example.org, b@evil.example", "A <a@example.org>", "a@b@example.org", "example.org", `"a b"@example.org`,
		"a@example.org\n", "a@localhost", "@example.org",
	] {
		not lib.email_domain(address)
	}
}

test_time_between if {
	lib.time_between("2026-01-01T12:00:00Z", "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z")
	lib.time_between("2026-01-01T13:30:00+01:00", "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z")
	not lib.time_between("2026-01-01T13:00:00Z", "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z")
}

test_hours_between if {
	lib.hours_between("2026-01-01T08:00:00Z", "09:00", "17:00", "Europe/Berlin")
	not lib.hours_between("2026-01-01T16:00:00Z", "09:00", "17:00", "Europe/Berlin")
	lib.hours_between("2026-01-01T23:00:00Z", "22:00", "06:00", "UTC")
	lib.hours_between("2026-01-01T05:59:00Z", "22:00", "06:00", "UTC")
	not lib.hours_between("2026-01-01T06:00:00Z", "22:00", "06:00", "UTC")
}

test_weekday_in if {
	lib.weekday_in("2026-01-01T12:00:00Z", {"Thursday"}, "UTC")
	not lib.weekday_in("2026-01-01T23:30:00Z", {"Thursday"}, "Europe/Berlin")
}
