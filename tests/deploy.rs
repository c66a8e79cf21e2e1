//! deploy/: what it says fits what the binary does. No container runs here; what one would run is run as it is written.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::shop::python;
use crate::support::{Address, Client, Gateway, look_until};

const SITE: &str = "sites: [{ routes: [{ path: /, respond: { body: ok } }] }]\n";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The instructions of a Dockerfile, each on one line, without comments.
fn instructions(path: &str) -> Vec<(String, String)> {
    let text = text(path).replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), rest.trim().to_owned())
    };
    lines.map(split).collect()
}

/// The last instruction of this name: the one that holds.
fn last(instructions: &[(String, String)], name: &str) -> String {
    let found = instructions.iter().rev().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.clone()
}

/// What the exec form of an instruction runs.
fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

/// `hostler` with the words that the image has, on this file instead of its own.
fn run_as_in_the_image(words: &[String], config: &Path) -> Command {
    assert_eq!(words[0], "hostler");
    let file =
        |word: &String| if word == "/etc/hostler/hostler.yaml" { config.to_path_buf() } else { PathBuf::from(word) };
    let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
    command.args(words[1..].iter().map(file));
    command
}

#[test]
fn the_images_are_built_in_stages_and_run_as_nobody_special() {
    let hostler = instructions("deploy/Dockerfile");
    assert_eq!(hostler.iter().filter(|(name, _)| name == "FROM").count(), 2, "a compiler has no place in the image");
    for file in ["deploy/Dockerfile", "deploy/shop.Dockerfile"] {
        let image = instructions(file);
        assert_eq!(last(&image, "USER"), "10001:10001", "{file}");
        let user = image.iter().position(|(name, _)| name == "USER").unwrap();
        assert!(image[user..].iter().all(|(name, _)| !matches!(name.as_str(), "RUN" | "COPY" | "ADD")), "{file}");
        for (_, rest) in image.iter().filter(|(name, rest)| name == "COPY" && !rest.starts_with("--from")) {
            let sources = rest.split(' ').collect::<Vec<_>>();
            for source in &sources[..sources.len() - 1] {
                assert!(repository().join(source).exists(), "{file} copies {source}");
            }
        }
    }
    let rust = format!("rust:{}", env!("CARGO_PKG_RUST_VERSION"));
    assert!(hostler[0].1.starts_with(&rust), "{} is not {rust}", hostler[0].1);
}

#[test]
fn the_images_healthcheck_tells_a_gateway_that_runs_from_one_that_does_not() {
    let image = instructions("deploy/Dockerfile");
    let check = last(&image, "HEALTHCHECK");
    let check = words(&check[check.find("CMD ").unwrap() + 4..]);
    // The admin listener is known by its address.
    let gateway = Gateway::start(&format!("admin: {{ bind: \"unix:./admin.sock\" }}\n{SITE}"));
    let file = gateway.folder().join("hostler.yaml");
    let healthy = run_as_in_the_image(&check, &file).output().unwrap();
    assert!(healthy.status.success(), "{}", String::from_utf8_lossy(&healthy.stderr));
    let kept = tempfile::tempdir().unwrap();
    let copy = kept.path().join("hostler.yaml");
    std::fs::copy(&file, &copy).unwrap();
    drop(gateway);
    let gone = run_as_in_the_image(&check, &copy).output().unwrap();
    assert!(!gone.status.success(), "{}", String::from_utf8_lossy(&gone.stdout));
}

#[test]
fn the_image_serves_as_it_is_written() {
    let image = instructions("deploy/Dockerfile");
    let whole = [words(&last(&image, "ENTRYPOINT")), words(&last(&image, "CMD"))].concat();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostler.yaml");
    std::fs::write(&file, format!("listeners: [{{ bind: \"unix:./shop.sock\" }}]\n{SITE}")).unwrap();
    let mut command = run_as_in_the_image(&whole, &file);
    let mut served = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let address = Address::Unix(folder.path().join("shop.sock"));
    let is_open = look_until(|| address.connect().ok());
    let status = is_open.is_some().then(|| Client::connect(&address).get("/").status);
    served.kill().unwrap();
    served.wait().unwrap();
    assert_eq!(status, Some(200));
}

fn compose() -> Value {
    serde_saphyr::from_str(&text("deploy/compose.yaml")).unwrap()
}

#[test]
fn the_containers_of_compose_fit_each_other() {
    let compose = compose();
    let services = &compose["services"];
    let deploy = repository().join("deploy");
    for name in ["hostler", "app"] {
        let build = &services[name]["build"];
        let context = deploy.join(build["context"].as_str().unwrap());
        assert!(context.join(build["dockerfile"].as_str().unwrap()).is_file(), "{build}");
        let volumes = services[name]["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|volume| volume == "socket:/run/shop"), "{name} has no part in the socket");
        for volume in volumes.iter().filter_map(Value::as_str).filter(|volume| volume.starts_with('.')) {
            let source = volume.split(':').next().unwrap();
            assert!(deploy.join(source).is_file(), "{name} mounts {source}");
        }
        assert_eq!(services[name]["read_only"], true);
        assert_eq!(services[name]["cap_drop"], serde_json::json!(["ALL"]));
    }
    let path = repository().join("config/examples/compose.yaml");
    let config = hostler::config::load(&path).unwrap_or_else(|report| panic!("{report}")).config;
    let upstream = &config.upstreams[0];
    let workers = services["app"]["environment"]["WEB_CONCURRENCY"].as_str().unwrap().parse().unwrap();
    assert_eq!(upstream.workers, hostler::config::Workers::Count(workers));
    let socket = hostler::config::Place::Unix("/run/shop/gunicorn.sock".into());
    assert_eq!(upstream.endpoints[0].address.place, socket);
    assert!(text("deploy/gunicorn.conf.py").contains("unix:/run/shop/gunicorn.sock"));
    let port = services["hostler"]["ports"][0].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(config.listeners[0].name, port, "what is published is what is listened on");
    assert!(config.admin.is_some(), "the HEALTHCHECK asks it");
    assert_eq!(config.spool.dir, Path::new("/var/tmp"), "the one folder that can be written to");
}

#[test]
fn the_apps_container_starts_what_is_there() {
    let image = instructions("deploy/shop.Dockerfile");
    let command = words(&last(&image, "CMD"));
    assert_eq!(command[0], "gunicorn");
    let config = repository().join("deploy/gunicorn.conf.py").display().to_string();
    let arguments = command[1..].iter().map(|word| word.replace("/etc/gunicorn.conf.py", &config));
    // The same words, with one more: gunicorn reads its settings, loads the app, and ends.
    let mut check = Command::new(python());
    check
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-m", "gunicorn", "--check-config"])
        .args(arguments)
        .current_dir(repository().join("examples/shop"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text("examples/shop/requirements.txt").contains("\ngunicorn=="), "the image installs it");
}
