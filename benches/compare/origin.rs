//! The origin of the comparison bench: answers every GET with 1 KiB, as fast as one thread can.
//!
//! It listens on a TCP port that the system chooses and on the unix socket named by its one argument, and prints
//! `ready PORT`. `GET /served` answers with the number of requests answered so far, itself not counted: that is how the
//! bench knows how much work went through a proxy in a stretch of time. Heads are not checked beyond what framing
//! needs; this is no server for anything else.

use std::env;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;

const BODY: [u8; 1024] = [b'x'; 1024];
const HEAD_MOST: usize = 64 << 10;

fn main() -> io::Result<()> {
    let Some(socket) = env::args_os().nth(1) else {
        return Err(io::Error::other("usage: bench-origin UNIX_SOCKET"));
    };
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let unix = UnixListener::bind(socket)?;
        println!("ready {}", tcp.local_addr()?.port());
        let origin = Arc::new(Origin::new());
        tokio::try_join!(accept_tcp(tcp, origin.clone()), accept_unix(unix, origin))?;
        Ok(())
    })
}

async fn accept_tcp(listener: TcpListener, origin: Arc<Origin>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, origin.clone()));
    }
}

async fn accept_unix(listener: UnixListener, origin: Arc<Origin>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, origin.clone()));
    }
}

/// One keep-alive connection, until the other side closes it or sends what is no GET.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, origin: Arc<Origin>) {
    let mut input = Vec::with_capacity(4096);
    let mut output = Vec::with_capacity(4096);
    while let Ok(1..) = stream.read_buf(&mut input).await {
        let mut taken = 0;
        while let Some(length) = memmem::find(&input[taken..], b"\r\n\r\n") {
            if !origin.answer(&input[taken..taken + length], &mut output) {
                return;
            }
            taken += length + 4;
        }
        input.drain(..taken);
        if input.len() > HEAD_MOST || stream.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
    }
}

struct Origin {
    served: AtomicU64,
    page: Vec<u8>,
}

impl Origin {
    fn new() -> Self {
        Self { served: AtomicU64::new(0), page: answer(&BODY) }
    }

    /// Appends the answer to the request with this head; false if there is none.
    fn answer(&self, head: &[u8], output: &mut Vec<u8>) -> bool {
        if head.starts_with(b"GET /served ") {
            output.extend(answer(self.served.load(Ordering::Relaxed).to_string().as_bytes()));
        } else if head.starts_with(b"GET ") {
            self.served.fetch_add(1, Ordering::Relaxed);
            output.extend_from_slice(&self.page);
        } else {
            return false;
        }
        true
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}
