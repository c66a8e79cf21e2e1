# Varnish as a careful administrator would set it up for this job. There is nothing to be said: answers are kept as long as they
# say themselves, and requests for the same wait for one another by default. Its memory and threads are in peers.py, which
# fills in @NAMES@.

vcl 4.1;

backend origin {
    .host = "127.0.0.1";
    .port = "@ORIGIN_PORT@";
}
