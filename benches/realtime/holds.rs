//! The load of the bench of held clients: opens N event streams or WebSockets, publishes to all of them at once, and tells when the
//! last one had it, and what that cost the gateway.
//!
//!     bench-holds sse|ws ADDRESS PATH N ROUNDS PID[,PID...] PUBLISH_ADDRESS PUBLISH_PATH CHANNEL FORM
//!
//! FORM is `grip` (Pushpin's and Hostler's JSON items) or `nchan` (the bare message). Connections come from several loopback addresses,
//! because one has 28,000 ports. One thread and one epoll read all of them; the clock of a delivery starts before the publish is
//! written. CPU is the user and system time of the gateway's processes from /proc, the idle time between rounds left out.
//! Memory is VmRSS with N holds less VmRSS without. At the end comes one line of JSON.

use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

const USAGE: &str =
    "usage: bench-holds sse|ws ADDRESS PATH N ROUNDS PID[,PID] PUBLISH_ADDRESS PUBLISH_PATH CHANNEL grip|nchan";
/// Connections from one of this machine's addresses.
const FROM_ONE: usize = 20_000;
/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is published: an event as a chat has it.
const EVENT: &str = "event: message\ndata: {\"from\": \"ann\", \"text\": \"hello to everybody who is here\"}\n\n";

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let plan = Plan::read(&words).ok_or_else(|| io::Error::other(USAGE))?;
    raise_descriptor_limit();
    println!("{}", run(&plan)?);
    Ok(())
}

struct Plan {
    is_websocket: bool,
    address: SocketAddr,
    path: String,
    holds: usize,
    rounds: usize,
    gateway: Vec<u32>,
    publish: SocketAddr,
    publish_path: String,
    channel: String,
    is_grip: bool,
}

impl Plan {
    fn read(words: &[String]) -> Option<Self> {
        let [kind, address, path, holds, rounds, pids, publish, publish_path, channel, form] = words else {
            return None;
        };
        Some(Self {
            is_websocket: match kind.as_str() {
                "sse" => false,
                "ws" => true,
                _ => return None,
            },
            address: address.parse().ok()?,
            path: path.clone(),
            holds: holds.parse().ok()?,
            rounds: rounds.parse().ok()?,
            gateway: pids.split(',').map(|pid| pid.parse().ok()).collect::<Option<_>>()?,
            publish: publish.parse().ok()?,
            publish_path: publish_path.clone(),
            channel: channel.clone(),
            is_grip: match form.as_str() {
                "grip" => true,
                "nchan" => false,
                _ => return None,
            },
        })
    }

    fn publication(&self, round: usize) -> String {
        let (media_type, body) = if self.is_grip {
            let content = EVENT.replace('"', "\\\"").replace('\n', "\\n").replace("here", &format!("here {round:06}"));
            let format = if self.is_websocket { "ws-message" } else { "http-stream" };
            let item = format!("{{\"channel\":\"{}\",\"{format}\":{{\"content\":\"{content}\"}}}}", self.channel);
            ("application/json", format!("{{\"items\":[{item}]}}"))
        } else {
            // nchan makes the event of it.
            let data = EVENT.split("data: ").nth(1).unwrap_or_default().trim_end();
            ("text/plain", data.replace("here", &format!("here {round:06}")))
        };
        let Self { publish_path, .. } = self;
        let length = body.len();
        format!(
            "POST {publish_path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    }
}

/// What one process has used: CPU in seconds, and resident memory in KiB.
#[derive(Default, Clone, Copy)]
struct Used {
    cpu: f64,
    memory: u64,
}

fn used(pids: &[u32]) -> io::Result<Used> {
    let mut sum = Used::default();
    // Linux has counted in hundredths of a second here for ever.
    const TICKS: f64 = 100.0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        sum.cpu += (ticks(11) + ticks(12)) / TICKS;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        sum.memory += line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
        // Finer than ticks, where the kernel has it.
        if let Ok(precise) = schedstat(*pid) {
            sum.cpu += precise - (ticks(11) + ticks(12)) / TICKS;
        }
    }
    Ok(sum)
}

/// Nanoseconds on a CPU, of all threads.
fn schedstat(pid: u32) -> io::Result<f64> {
    let mut nanoseconds = 0_u64;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}

fn run(plan: &Plan) -> io::Result<String> {
    let before = used(&plan.gateway)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut clients = connect(plan, &poll)?;
    // What opening them has left behind.
    std::thread::sleep(Duration::from_secs(2));
    let held = used(&plan.gateway)?;
    let mut publisher = TcpStream::connect(plan.publish)?;
    publisher.set_nodelay(true)?;
    let (mut last, mut half) = (Vec::new(), Vec::new());
    let mut cpu = 0.0;
    for round in 0..plan.rounds {
        std::thread::sleep(Duration::from_millis(200));
        let idle = used(&plan.gateway)?;
        let mark = format!("here {round:06}");
        let begun = Instant::now();
        publisher.write_all(plan.publication(round).as_bytes())?;
        let (middle, end) = receive(&poll, &mut clients, mark.as_bytes(), begun)?;
        read_answer(&mut publisher)?;
        cpu += used(&plan.gateway)?.cpu - idle.cpu;
        half.push(middle);
        last.push(end);
    }
    let deliveries = (plan.holds * plan.rounds) as f64;
    last.sort();
    half.sort();
    let millis = |all: &[Duration]| all.get(all.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let worst = last.last().map_or(0.0, |time| time.as_secs_f64() * 1e3);
    Ok(format!(
        "{{\"holds\":{},\"rounds\":{},\"last_ms\":{:.2},\"last_ms_worst\":{worst:.2},\"half_ms\":{:.2},\"cpu_us_per_delivery\":{:.3},\"kib_per_hold\":{:.3}}}",
        plan.holds,
        plan.rounds,
        millis(&last),
        millis(&half),
        cpu / deliveries * 1e6,
        held.memory.saturating_sub(before.memory) as f64 / plan.holds as f64,
    ))
}

/// Opens all of them, each read up to the end of its head.
fn connect(plan: &Plan, poll: impl AsFd + Copy) -> io::Result<Vec<TcpStream>> {
    let (fields, status) = match plan.is_websocket {
        false => ("Accept: text/event-stream\r\n", "HTTP/1.1 200"),
        true => (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "HTTP/1.1 101",
        ),
    };
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n", plan.path);
    let mut clients = Vec::with_capacity(plan.holds);
    let mut piece = vec![0; 16 << 10];
    for at in 0..plan.holds {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if plan.address.ip().is_loopback() {
            let source = [127, 0, 1, 1 + u8::try_from(at / FROM_ONE).unwrap_or(u8::MAX - 1)];
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        socket.connect(&plan.address.into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            match stream.read(&mut piece)? {
                0 => {
                    return Err(io::Error::other(format!(
                        "stream {at} was closed: {}",
                        String::from_utf8_lossy(&head)
                    )));
                }
                read => head.extend_from_slice(&piece[..read]),
            }
        }
        if !head.starts_with(status.as_bytes()) {
            return Err(io::Error::other(format!("stream {at}: {}", String::from_utf8_lossy(&head))));
        }
        stream.set_nonblocking(true)?;
        epoll::add(poll, &stream, EventData::new_u64(at as u64), EventFlags::IN | EventFlags::ET)?;
        clients.push(stream);
    }
    Ok(clients)
}

/// Reads until every client has had what is published. When half of them had it, and the last one.
fn receive(
    poll: impl AsFd + Copy,
    clients: &mut [TcpStream],
    mark: &[u8],
    begun: Instant,
) -> io::Result<(Duration, Duration)> {
    let mut left = clients.len();
    let mut half = Duration::ZERO;
    let mut events: Vec<Event> = Vec::with_capacity(1_024);
    let mut piece = vec![0; 16 << 10];
    while left > 0 {
        events.clear();
        let wait = Timespec { tv_sec: 1, tv_nsec: 0 };
        epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), Some(&wait))?;
        if events.is_empty() && begun.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("{left} clients have not had it after {PATIENCE:?}")));
        }
        for event in &events {
            let at = usize::try_from(event.data.u64()).unwrap_or(0);
            loop {
                match clients[at].read(&mut piece) {
                    Ok(0) => return Err(io::Error::other(format!("stream {at} was closed"))),
                    Ok(read) => {
                        // Keep-alives come between, and nothing is ever cut in two on loopback.
                        if piece[..read].windows(mark.len()).any(|part| part == mark) {
                            left -= 1;
                            if left == clients.len() / 2 {
                                half = begun.elapsed();
                            }
                        }
                        if read < piece.len() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok((half, begun.elapsed()))
}

/// The answer to a publication: any 2xx.
fn read_answer(publisher: &mut TcpStream) -> io::Result<()> {
    let mut answer = Vec::new();
    let mut piece = [0; 4 << 10];
    publisher.set_read_timeout(Some(PATIENCE))?;
    loop {
        let read = publisher.read(&mut piece)?;
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if read == 0 {
                return Err(io::Error::other(format!("the publication was not answered: {text}")));
            }
            continue;
        };
        if !head.starts_with("HTTP/1.1 2") {
            return Err(io::Error::other(format!("the publication was refused: {text}")));
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
        });
        if read == 0 || length.is_none_or(|length| body.len() >= length) {
            return Ok(());
        }
    }
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without it fewer clients fit, which the connects tell.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
