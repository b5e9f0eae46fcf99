module taskgrant.test/client

go 1.19
