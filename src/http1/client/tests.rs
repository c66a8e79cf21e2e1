//! What becomes of a withheld body, with a worker on TCP that is scripted here.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;
use crate::error::Retry;
use crate::http::Source;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n";
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(1);

/// Two bytes that take their time, as those on a disk do: told when they are asked for first.
struct Slow {
    asked: Rc<Notify>,
    is_asked: Rc<Cell<bool>>,
    /// `None`: they never come.
    time: Option<Pin<Box<tokio::time::Sleep>>>,
    is_over: bool,
}

impl Source for Slow {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.is_asked.set(true);
        self.asked.notify_one();
        let Some(time) = &mut self.time else { return Poll::Pending };
        if !self.is_over {
            ready!(time.as_mut().poll(cx));
            self.is_over = true;
            return Poll::Ready(Some(Ok(Bytes::from_static(b"ok"))));
        }
        Poll::Ready(None)
    }

    fn remaining(&self) -> Option<u64> {
        Some(if self.is_over { 0 } else { 2 })
    }
}

/// One exchange with a worker that does as `script` says once it has the head; it hears when the body is asked for.
fn exchange<F: Future<Output = ()> + 'static>(
    expect: Expect,
    patience: Patience,
    time: Option<Duration>,
    script: impl FnOnce(TcpStream, Rc<Notify>) -> F,
) -> (Result<StatusCode, Error>, bool) {
    crate::runtime::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut worker, _) = listener.accept().await.unwrap();
        let (asked, is_asked) = (Rc::new(Notify::new()), Rc::new(Cell::new(false)));
        let time = time.map(|time| Box::pin(tokio::time::sleep(time)));
        let source = Slow { asked: Rc::clone(&asked), is_asked: Rc::clone(&is_asked), time, is_over: false };
        let told = async {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") {
                worker.read_exact(&mut byte).await.unwrap();
                head.extend(byte);
            }
            script(worker, asked).await;
        };
        let connection = Connection::boxed(Stream::Plain(Socket::Tcp(stream)), &HTTP1);
        let body = Body::Stream(Box::new(source));
        let withhold = Withhold::UntilContinue(expect);
        let asking = connection.exchange(HEAD, body, &Method::POST, withhold, patience);
        let both = async { tokio::join!(asking, told).0 };
        let result = tokio::time::timeout(LONG, both).await.expect("it ends");
        (result.map(|response| response.head.status).map_err(|failed| failed.error), is_asked.get())
    })
    .unwrap()
}

#[test]
fn a_reset_after_the_time_for_the_100_does_not_prove_a_request_unsent() {
    let expect = Expect { patience: SHORT, is_known: false };
    let (result, _) = exchange(expect, Patience { head: LONG, idle: LONG }, None, async |worker, asked| {
        // The body is asked for: the time is over, and nothing of it has gone.
        asked.notified().await;
        Socket::Tcp(worker).reset_on_close();
    });
    let error = result.unwrap_err();
    assert_eq!((error.reason, error.retry), (Reason::ResetBeforeHead, Retry::IfIdempotent));
}

#[test]
fn a_reset_within_the_time_for_the_100_proves_it() {
    let expect = Expect { patience: LONG, is_known: false };
    let (result, is_asked) = exchange(expect, Patience { head: LONG, idle: LONG }, None, async |worker, _| {
        Socket::Tcp(worker).reset_on_close();
    });
    let error = result.unwrap_err();
    assert_eq!((error.reason, error.retry, is_asked), (Reason::ResetBeforeHead, Retry::Unsent, false));
}

#[test]
fn a_body_may_take_longer_than_the_worker_had_for_the_100() {
    let expect = Expect { patience: SHORT, is_known: true };
    let slow = Some(crate::runtime::deadline::TICK * 5);
    let (result, _) = exchange(expect, Patience { head: LONG, idle: LONG }, slow, async |mut worker, _| {
        worker.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 2];
        if worker.read_exact(&mut body).await.is_ok() {
            worker.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    assert_eq!(result.unwrap(), StatusCode::OK);
}

#[test]
fn a_worker_that_always_says_100_and_now_does_not_is_late_and_gets_no_body() {
    let expect = Expect { patience: SHORT, is_known: true };
    let (result, is_asked) = exchange(expect, Patience { head: SHORT, idle: LONG }, None, async |mut worker, _| {
        assert!(worker.read(&mut [0]).await.is_err(), "the end of a request that is not whole is a reset");
    });
    assert_eq!((result.unwrap_err().reason, is_asked), (Reason::HeadTimeout, false));
}

/// Seen now and then on a busy machine: the reset came between the head and the first byte of the body.
#[test]
fn a_reset_that_writing_runs_into_first_is_no_end_of_an_answer_without_a_length() {
    crate::runtime::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut worker, _) = listener.accept().await.unwrap();
        worker.write_all(b"HTTP/1.1 200 OK\r\n\r\nall but the last wo").await.unwrap();
        // What lies unread is there, so that reading finds it whatever writing has been told.
        stream.readable().await.unwrap();
        Socket::Tcp(worker).reset_on_close();
        let connection = Connection::boxed(Stream::Plain(Socket::Tcp(stream)), &crate::uwsgi::DIALECT);
        let body = Body::Full(Bytes::from_static(b"ok"));
        let patience = Patience { head: LONG, idle: LONG };
        let asked = connection.exchange(HEAD, body, &Method::POST, Withhold::Nothing, patience).await;
        let mut answer = asked.map_err(|failed| failed.error).unwrap().body;
        let mut end = answer.data().await;
        while let Ok(Some(_)) = end {
            end = answer.data().await;
        }
        assert_eq!(end.map_err(|error| error.reason), Err(Reason::EofInBody));
    })
    .unwrap();
}
