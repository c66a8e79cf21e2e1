use std::time::Duration;

use super::{CacheStatus, EndpointStatus, Status, UpstreamStatus, json, table};
use crate::cache::store::Numbers;
use crate::error::Reason;
use crate::upstream::{Condition, Needed, RoomStatus};

fn endpoint(address: &str, condition: Condition, in_flight: u32) -> EndpointStatus {
    EndpointStatus { address: address.into(), condition, in_flight, workers: None, weight: 1, is_backup: false }
}

/// One upstream that is well, and one that has everything wrong with it.
fn status() -> Status {
    let well = RoomStatus {
        in_flight: 3,
        workers: Some(4),
        waiting: 12,
        streams: 1,
        is_paused: false,
        outage: None,
        is_failing: false,
        needed: Some(Needed { arrivals_per_second: 38.25, service_seconds: 0.1, workers_hint: 5 }),
    };
    let ill = RoomStatus {
        in_flight: 2,
        workers: None,
        waiting: 0,
        streams: 0,
        is_paused: true,
        outage: Some((Duration::from_millis(31_500), Reason::ConnectRefused)),
        is_failing: true,
        needed: None,
    };
    let upstream = |name: &str, room, endpoints| UpstreamStatus {
        name: name.into(),
        room,
        workers_assumed: name == "app",
        streams_max: 3,
        waiting_limit: 100,
        waiting_timeout: Duration::from_secs(30),
        endpoints,
    };
    let api = EndpointStatus {
        workers: Some(2),
        weight: 5,
        is_backup: true,
        ..endpoint("http://10.0.0.5:8000", Condition::Silent, 2)
    };
    let app = vec![endpoint("unix:/run/a.sock", Condition::Up, 3), endpoint("unix:/b", Condition::Drained, 0)];
    Status {
        uptime: Duration::from_millis(12_000_500),
        generation: 4,
        is_ready: true,
        upstreams: vec![upstream("app", well, app), upstream("api", ill, vec![api])],
        cache: None,
    }
}

/// Of a cache with a disk that is in trouble.
fn cache() -> CacheStatus {
    let numbers = Numbers {
        memory_bytes: 12 << 20,
        memory_objects: 345,
        disk_bytes: 5 << 29,
        disk_objects: 6789,
        corrupted: 2,
        write_failures: 3,
        purged: 41,
        ..Numbers::default()
    };
    CacheStatus { numbers, memory_limit: 256 << 20, disk_limit: Some(10 << 30) }
}

#[test]
fn json_says_everything_under_names_that_stay() {
    let expected = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": 12_000.5,
        "generation": 4,
        "ready": true,
        "upstreams": [{
            "name": "app",
            "workers": 4,
            "workers_assumed": true,
            "in_flight": 3,
            "utilisation": 0.75,
            "waiting": 12,
            "waiting_room": { "limit": 100, "timeout_seconds": 30 },
            "streams": { "now": 1, "max": 3 },
            "paused": false,
            "outage": null,
            "arrivals_per_second": 38.25,
            "service_seconds": 0.1,
            "workers_hint": 5,
            "endpoints": [
                { "address": "unix:/run/a.sock", "condition": "up", "in_flight": 3, "workers": null, "weight": 1, "backup": false },
                { "address": "unix:/b", "condition": "drained", "in_flight": 0, "workers": null, "weight": 1, "backup": false },
            ],
        }, {
            "name": "api",
            "workers": null,
            "workers_assumed": false,
            "in_flight": 2,
            "utilisation": null,
            "waiting": 0,
            "waiting_room": { "limit": 100, "timeout_seconds": 30 },
            "streams": { "now": 0, "max": 3 },
            "paused": true,
            "outage": { "seconds": 31.5, "reason": "connect_refused", "failing": true },
            "arrivals_per_second": null,
            "service_seconds": null,
            "workers_hint": null,
            "endpoints": [
                { "address": "http://10.0.0.5:8000", "condition": "silent", "in_flight": 2, "workers": 2, "weight": 5, "backup": true },
            ],
        }],
        "cache": null,
    });
    let written: serde_json::Value = serde_json::from_slice(&json::render(&status())).unwrap();
    assert_eq!(written, expected);
}

#[test]
fn a_terminal_gets_lines_and_what_needs_a_hand_in_capitals() {
    let expected = format!(
        "Hostler {}, up 3 h 20 min, configuration 4, ready

app: 3 of 4 workers busy (assumed: `workers` is not set), 75 %; 12 waiting (at most 100, 30 s each); 1 of 3 streams
  last minute: 38.2 requests/s, 0.100 s of a worker each; workers_hint 5
  unix:/run/a.sock  up         3 in flight
  unix:/b           DRAINED    0 in flight

api: 2 workers busy, no limit; 0 waiting (at most 100, 30 s each)
  PAUSED: requests wait until `hostler resume api`
  OUT for 31 s (connect_refused): requests fail at once
  http://10.0.0.5:8000  SILENT     2 in flight of 2, weight 5, backup
",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(table::render(&status()), expected);
}

#[test]
fn the_cache_is_told_where_a_route_has_one() {
    let with = |cache: CacheStatus| Status { cache: Some(cache), ..status() };
    let written: serde_json::Value = serde_json::from_slice(&json::render(&with(cache()))).unwrap();
    let expected = serde_json::json!({
        "memory": { "bytes": 12 << 20, "limit": 256 << 20, "objects": 345 },
        "disk": {
            "bytes": 2_684_354_560_u64,
            "limit": 10_737_418_240_u64,
            "objects": 6789,
            "indexed": false,
            "corrupted": 2,
            "errors": 3,
        },
        "purged": 41,
    });
    assert_eq!(written["cache"], expected);
    let lines = "
cache: 12.0 MiB of 256.0 MiB in memory, 345 objects; 2.5 GiB of 10.0 GiB on disk, 6789 objects
  its files are being found: those that have not been yet are looked for by name
  DISK ERRORS: 3 since the start: is it full, read-only or failing?
  CORRUPTED: 2 files were not as they were written, and were dropped
";
    assert!(table::render(&with(cache())).ends_with(lines));
    let well = Numbers { is_indexed: true, ..Numbers::default() };
    let written = with(CacheStatus { numbers: well, memory_limit: 1 << 20, disk_limit: None });
    assert!(table::render(&written).ends_with("\n\ncache: 0 B of 1.0 MiB in memory, 0 objects\n"));
}
