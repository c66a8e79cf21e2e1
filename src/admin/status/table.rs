//! `/status` for a terminal: some lines for each upstream, with what needs a hand first.

use std::fmt::Write as _;
use std::time::Duration;

use super::{CacheStatus, Status, UpstreamStatus};
use crate::upstream::Condition;

pub(super) fn render(status: &Status) -> String {
    let mut out = String::new();
    let ready = if status.is_ready { "ready" } else { "stopping" };
    // Writing to a String does not fail; the same holds below.
    let _ = writeln!(
        out,
        "Hostler {}, up {}, configuration {}, {ready}",
        env!("CARGO_PKG_VERSION"),
        span(status.uptime),
        status.generation
    );
    for upstream in &status.upstreams {
        out.push('\n');
        head(&mut out, upstream);
        troubles(&mut out, upstream);
        demand(&mut out, upstream);
        endpoints(&mut out, upstream);
    }
    if let Some(cache) = &status.cache {
        out.push('\n');
        write_cache(&mut out, cache);
    }
    out
}

fn write_cache(out: &mut String, cache: &CacheStatus) {
    let now = &cache.numbers;
    let _ = write!(
        out,
        "cache: {} of {} in memory, {} objects",
        size(now.memory_bytes),
        size(cache.memory_limit),
        now.memory_objects
    );
    if let Some(limit) = cache.disk_limit {
        let _ = write!(out, "; {} of {} on disk, {} objects", size(now.disk_bytes), size(limit), now.disk_objects);
    }
    out.push('\n');
    if !now.is_indexed {
        out.push_str("  its files are being found: those that have not been yet are looked for by name\n");
    }
    let errors = now.read_failures + now.write_failures;
    if errors > 0 {
        let _ = writeln!(out, "  DISK ERRORS: {errors} since the start: is it full, read-only or failing?");
    }
    if now.corrupted > 0 {
        let _ = writeln!(out, "  CORRUPTED: {} files were not as they were written, and were dropped", now.corrupted);
    }
}

/// `12.3 MiB`: three digits at most before the point.
#[allow(clippy::cast_precision_loss)]
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let large = units.iter().enumerate().rev().find(|(at, _)| bytes >> (10 * (at + 1)) > 0);
    large.map_or_else(
        || format!("{bytes} B"),
        |(at, unit)| format!("{:.1} {unit}", bytes as f64 / (1_u64 << (10 * (at + 1))) as f64),
    )
}

fn head(out: &mut String, upstream: &UpstreamStatus) {
    let room = &upstream.room;
    let _ = match (room.workers, upstream.utilisation()) {
        (Some(workers), Some(share)) => {
            let assumed = if upstream.workers_assumed { " (assumed: `workers` is not set)" } else { "" };
            write!(
                out,
                "{}: {} of {workers} workers busy{assumed}, {:.0} %",
                upstream.name,
                room.in_flight,
                share * 100.0
            )
        }
        _ => write!(out, "{}: {} workers busy, no limit", upstream.name, room.in_flight),
    };
    let _ = write!(
        out,
        "; {} waiting (at most {}, {} each)",
        room.waiting,
        upstream.waiting_limit,
        span(upstream.waiting_timeout)
    );
    if room.streams > 0 {
        let _ = write!(out, "; {} of {} streams", room.streams, upstream.streams_max);
    }
    out.push('\n');
}

fn troubles(out: &mut String, upstream: &UpstreamStatus) {
    if upstream.room.is_paused {
        let _ = writeln!(out, "  PAUSED: requests wait until `hostler resume {}`", upstream.name);
    }
    if let Some((lasted, reason)) = upstream.room.outage {
        let what = if upstream.room.is_failing { "requests fail at once" } else { "requests wait" };
        let _ = writeln!(out, "  OUT for {} ({}): {what}", span(lasted), reason.as_str());
    }
}

fn demand(out: &mut String, upstream: &UpstreamStatus) {
    if let Some(needed) = upstream.room.needed {
        let _ = writeln!(
            out,
            "  last minute: {:.1} requests/s, {:.3} s of a worker each; workers_hint {}",
            needed.arrivals_per_second, needed.service_seconds, needed.workers_hint
        );
    }
}

fn endpoints(out: &mut String, upstream: &UpstreamStatus) {
    let widest = upstream.endpoints.iter().map(|endpoint| endpoint.address.chars().count()).max().unwrap_or(0);
    for endpoint in &upstream.endpoints {
        let name = endpoint.condition.as_str();
        let condition = if endpoint.condition == Condition::Up { name.to_owned() } else { name.to_uppercase() };
        let _ = write!(out, "  {:widest$}  {condition:9}  {} in flight", endpoint.address, endpoint.in_flight);
        if let Some(workers) = endpoint.workers {
            let _ = write!(out, " of {workers}");
        }
        if endpoint.weight != 1 {
            let _ = write!(out, ", weight {}", endpoint.weight);
        }
        if endpoint.is_backup {
            out.push_str(", backup");
        }
        out.push('\n');
    }
}

/// `350 ms`, `12 s`, `5 min 3 s`, `3 h 20 min`, `9 d 4 h`: two units at most.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 && !duration.is_zero() {
        return format!("{} ms", duration.as_millis().max(1));
    }
    let (large, small) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3_600 => ((seconds / 60, "min"), (seconds % 60, "s")),
        3_600..86_400 => ((seconds / 3_600, "h"), (seconds / 60 % 60, "min")),
        _ => ((seconds / 86_400, "d"), (seconds / 3_600 % 24, "h")),
    };
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        _ => format!("{} {} {} {}", large.0, large.1, small.0, small.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (256 << 20, "256.0 MiB"), (3 << 39, "1.5 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (millis, text) in [
            (0, "0 s"),
            (350, "350 ms"),
            (1_500, "1 s"),
            (60_000, "1 min"),
            (303_000, "5 min 3 s"),
            (12_000_000, "3 h 20 min"),
            (792_000_000, "9 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }
}
