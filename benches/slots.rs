//! What one slot of the waiting room costs, taken and given back, with nobody waiting: by one thread, and by two at once.
//!
//! `cargo bench --bench slots`

use std::path::Path;
use std::time::Instant;

use hostler::upstream::{Connector, Upstream};
use hostler::{config, observe::metrics::Metrics, runtime};

const ROUNDS: u32 = 2_000_000;

fn main() {
    let text = "upstreams: { app: { endpoints: [\"unix:/nowhere\"], workers: 64 } }\n\
                sites: [{ routes: [{ path: /, proxy: app }] }]";
    let loaded = config::load_str(text, "slots.yaml", Path::new("/"), &|_| None).expect("the file is right");
    let config = &loaded.config.upstreams[0];
    for threads in [1, 2] {
        let connector = |endpoint| Connector::compile(config, endpoint).expect("no TLS to set up");
        let connectors = config.endpoints.iter().map(connector).collect();
        let upstream = Upstream::compile(config, connectors, None, Metrics::new().upstream("app"));
        upstream.put_in_force();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for client in 0..threads {
                let upstream = &upstream;
                scope.spawn(move || runtime::block_on(take_and_give_back(upstream, client)).expect("an event queue"));
            }
        });
        println!("{threads} at once: {:?} for each slot", begun.elapsed() / ROUNDS);
    }
}

async fn take_and_give_back(upstream: &Upstream, client: u64) {
    for _ in 0..ROUNDS {
        drop(upstream.slot(client).await.ok());
    }
}
