//! Static requests, row by row: `requests.txt` says what Hostler answers, and where nginx answers otherwise, and why.
//!
//! Both serve the same folder ([`tree`]) at the same path, and neither as a root that may read everything. Whatever differs
//! between two answers, and is not in the table, fails.

mod nginx;
mod seen;
mod table;
mod tree;

use self::nginx::Nginx;
use self::seen::Seen;
use self::table::Row;
use self::tree::Tree;
use crate::support::{Address, Client, Gateway, Response};

/// What a server's root may not do here: read what its mode forbids.
const WITHOUT_RIGHTS: &[&str] = &["setpriv", "--bounding-set=-dac_override,-dac_read_search"];

/// The program and arguments under which a server has no more rights than any other user, and nothing where it has not.
fn launcher() -> Vec<&'static str> {
    if rustix::process::geteuid().is_root() { WITHOUT_RIGHTS.to_vec() } else { vec!["env"] }
}

fn hostler(tree: &Tree) -> Gateway {
    Gateway::start_by(
        &launcher(),
        &format!(
            "sites:
  - hosts: [shop.example]
    routes:
      - {{ path: /s/, files: {{ root: \"{0}\" }}, compress: false }}
      - {{ path: /listed/, files: {{ root: \"{0}\", browse: true }}, compress: false }}
",
            tree.root().display()
        ),
    )
}

/// One request on a connection of its own.
fn ask(address: &Address, row: &Row, placeholders: &[(&str, String)]) -> Response {
    let mut client = Client::connect(address);
    // Who refuses early may not read it all.
    let _ = client.try_send(row.request(placeholders));
    client.try_response(row.method()).unwrap_or_else(|| panic!("{}: no answer from {address}", row.name))
}

/// What stands for validators in a row: those of an unconditional answer of this server.
fn placeholders(address: &Address, row: &Row) -> Vec<(&'static str, String)> {
    let plain = ask(address, &row.unconditional(), &[]);
    let field = |name| plain.header(name).unwrap_or_default().to_owned();
    vec![("@etag@", field("etag")), ("@date@", field("last-modified"))]
}

fn seen(address: &Address, row: &Row, tree: &Tree) -> Seen {
    let placeholders = if row.has_placeholders() { placeholders(address, row) } else { Vec::new() };
    Seen::new(row.method(), &ask(address, row, &placeholders), tree)
}

#[test]
fn every_static_request_is_answered_as_the_table_says_beside_nginx() {
    let tree = Tree::plant();
    let gateway = hostler(&tree);
    let nginx = Nginx::start(&tree);
    let mut wrong = Vec::new();
    let rows = table::rows();
    for row in &rows {
        let ours = seen(gateway.address(), row, &tree);
        let theirs = seen(nginx.address(), row, &tree);
        if let Some(missing) = row.expected.iter().find(|(name, value)| ours.get(name) != value) {
            wrong.push(format!("{}: not {missing:?}: {ours}", row.name));
        }
        let differences = ours.differences(&theirs);
        if differences != row.differences {
            let listed = table::in_words(&differences);
            wrong.push(format!("{}: nginx differs so: {listed}\n   Hostler: {ours}\n   nginx: {theirs}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn the_table_is_as_large_as_it_claims_and_names_each_row_once() {
    let rows = table::rows();
    let once: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.name).collect();
    assert!(rows.len() >= 80 && once.len() == rows.len(), "{} rows, {} names", rows.len(), once.len());
}
