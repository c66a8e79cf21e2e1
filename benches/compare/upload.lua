-- Scenario j: every request of wrk is a POST of 10 MiB.

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", 10 * 1024 * 1024)
