use super::*;

const MINIMAL: &str = "{ jwt: { jwks: https://login.example/jwks.json, issuer: https://login.example, audience: shop, algorithms: [RS256] } }";

fn with_auth(auth: &str) -> Option<Auth> {
    let text = format!("sites: [{{ routes: [{{ path: /, respond: {{}}, auth: {auth} }}] }}]");
    let loaded = load_str(&text, "f", Path::new("/etc/hostler"), &no_env).unwrap_or_else(|report| panic!("{report}"));
    loaded.config.sites[0].routes[0].auth.clone()
}

#[test]
fn the_reference_shows_the_defaults_of_auth() {
    let reference = load(&repository().join("config/hostler.yaml")).unwrap().config;
    let shown = reference.sites[0].routes.iter().filter_map(|route| route.auth.as_ref()?.jwt.clone()).next().unwrap();
    let default = with_auth(MINIMAL).unwrap().jwt.unwrap();
    assert_eq!(shown, Jwt { jwks: shown.jwks.clone(), ..default });
    let shown =
        reference.sites[0].routes.iter().filter_map(|route| route.auth.as_ref()?.forward.clone()).next().unwrap();
    let default = with_forward("{ upstream: login, path: /verify }").forward.unwrap();
    assert_eq!(shown, Forward { upstream: shown.upstream, headers: shown.headers.clone(), ..default });
}

/// With an upstream `login`, the second one.
fn with_forward(forward: &str) -> Auth {
    let text = format!(
        "upstreams: {{ app: {{ endpoints: ['unix:/run/app.sock'], workers: 4 }}, \
         login: {{ endpoints: ['http://127.0.0.1:4180'], workers: 4 }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app, auth: {{ forward: {forward} }} }}] }}]"
    );
    let loaded = load_str(&text, "f", Path::new("/etc/hostler"), &no_env).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "an upstream that is asked is not idle");
    loaded.config.sites[0].routes[0].auth.clone().unwrap()
}

#[test]
fn whom_a_route_asks_is_an_upstream_of_the_file() {
    let auth =
        with_forward("{ upstream: login, path: '/verify?rd=/x', headers: [Remote-User, X-Groups], timeout: 2s }");
    let names: Vec<&str> = auth.identity_names().collect();
    assert_eq!(names, ["remote-user", "x-groups", "x-original-method", "x-original-uri", "x-original-url"]);
    let expected = Forward {
        upstream: 1,
        path: "/verify?rd=/x".into(),
        headers: vec!["remote-user".into(), "x-groups".into()],
        timeout: Duration::from_secs(2),
    };
    assert_eq!(auth.forward, Some(expected));
    let text = "upstreams: { login: { endpoints: ['http://127.0.0.1:4180'], workers: 4 } }\n\
                sites: [{ routes: [{ path: /, auth: { forward: { upstream: login, path: / } }, respond: {}, priority: 3, timeout: 9s }] }]";
    let loaded = load_str(text, "f", Path::new("/etc/hostler"), &no_env).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "both hold for the question");
    let default = with_forward("{ upstream: login, path: / }").forward.unwrap();
    assert_eq!((default.headers, default.timeout), (vec![], Duration::from_secs(5)));
}

#[test]
fn a_route_is_open_unless_it_says_otherwise() {
    assert_eq!(minimal("").sites[0].routes[0].auth, None);
    let auth = with_auth("{ allow: [10.0.0.0/8, unix] }").unwrap();
    let allow = auth.allow.unwrap();
    assert!(allow.has("10.1.1.1".parse().ok()) && allow.has(None) && !allow.has("11.1.1.1".parse().ok()));
    assert_eq!((auth.basic, auth.jwt, auth.forward), (None, None, None));
}

#[test]
fn names_that_the_app_believes_are_those_of_all_routes() {
    let claims = MINIMAL.replace("algorithms", "claims: { sub: Remote-User, groups: X-Groups }, algorithms");
    let text =
        format!("sites: [{{ routes: [{{ path: /a, respond: {{}}, auth: {claims} }}, {{ path: /, respond: {{}} }}] }}]");
    let config = load_str(&text, "f", Path::new("/"), &no_env).unwrap().config;
    let names: Vec<&str> = config.sites[0].routes.iter().flat_map(Route::identity_names).collect();
    assert_eq!(names, ["remote-user", "x-groups"]);
}

#[test]
fn what_is_wrong_in_auth_never_leaves_a_route_open() {
    for auth in [
        "{}",
        "",
        "{ allow: [] }",
        "{ allow: nobody }",
        "{ allow: [10.0.0.0/8], basic: {} }",
        "{ allow: [10.0.0.0/8], basic: { users: ./missing } }",
        "{ jwt: { jwks: ./missing, issuer: i, audience: a, algorithms: [RS256] } }",
        "{ forward: { url: 'http://127.0.0.1/' } }",
        "{ forward: { upstream: nobody, path: /verify } }",
        "{ allow: [10.0.0.0/8], forward: {} }",
        "{ basci: { users: ./users } }",
        "off",
    ] {
        let text = format!("sites: [{{ routes: [{{ path: /, respond: {{}}, auth: {auth} }}] }}]");
        assert!(load_str(&text, "f", Path::new("/etc/hostler"), &no_env).is_err(), "{auth}");
    }
}
