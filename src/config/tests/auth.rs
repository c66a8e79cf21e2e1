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
}

#[test]
fn a_route_is_open_unless_it_says_otherwise() {
    assert_eq!(minimal("").sites[0].routes[0].auth, None);
    let auth = with_auth("{ allow: [10.0.0.0/8, unix] }").unwrap();
    let allow = auth.allow.unwrap();
    assert!(allow.has("10.1.1.1".parse().ok()) && allow.has(None) && !allow.has("11.1.1.1".parse().ok()));
    assert_eq!((auth.basic, auth.jwt), (None, None));
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
        "{ basci: { users: ./users } }",
        "off",
    ] {
        let text = format!("sites: [{{ routes: [{{ path: /, respond: {{}}, auth: {auth} }}] }}]");
        assert!(load_str(&text, "f", Path::new("/etc/hostler"), &no_env).is_err(), "{auth}");
    }
}
