//! The operator's listener.

use crate::support::{Address, Client, Gateway};

#[test]
fn who_does_not_bring_the_token_learns_nothing() {
    let gateway = Gateway::start(
        "admin: { bind: \"127.0.0.254:0\", token: 0123456789abcdef }\n\
         sites: [{ routes: [{ path: /, respond: { body: ok } }] }]\n",
    );
    let ask = |path: &str, field: &str| {
        let mut client = Client::connect(&Address::Tcp(gateway.admin()));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: admin\r\n{field}Connection: close\r\n\r\n"));
        client.response("GET")
    };
    for path in ["/metrics", "/live", "/ready", "/other"] {
        for field in ["", "Authorization: Bearer 0123456789abcdee\r\n"] {
            let refused = ask(path, field);
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{path} {field}");
        }
    }
    let right = "Authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(ask("/live", right).status, 200);
    assert!(ask("/metrics", right).text().contains("hostler_"));
}
