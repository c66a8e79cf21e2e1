//! One single-threaded runtime per core, and what its tasks share: streams, buffers, deadlines, the drain flag.
//!
//! The only place that builds a runtime. Everything here is `!Send` and lives in its thread.

pub mod allowance;
pub mod buffers;
pub mod chance;
pub mod deadline;
pub mod drain;
mod hang_up;
pub mod io;
mod pieces;
mod span;
mod unread;

use std::future::Future;
use std::io as std_io;

use tokio::runtime::{Builder, LocalOptions};

pub use allowance::{Allowance, Credit};
pub use deadline::Deadline;
pub use hang_up::HangUp;
pub use io::{Socket, Stream};
pub use pieces::PieceReader;
pub use span::Span;

/// The most threads one runtime uses for disk.
const MAX_BLOCKING_THREADS: usize = 32;

/// Runs `main` to its end on a single-threaded runtime in this thread.
///
/// # Errors
/// What the system said when it was asked for an event queue.
pub fn block_on<F: Future>(main: F) -> std_io::Result<F::Output> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build_local(LocalOptions::default())?;
    let output = runtime.block_on(async {
        let sweeper = tokio::task::spawn_local(deadline::sweep());
        let output = main.await;
        sweeper.abort();
        output
    });
    // Whatever still reads or writes a spool file is of no use to anybody now.
    runtime.shutdown_background();
    Ok(output)
}

/// Runs a test as [`block_on`] runs the program, with time that passes only when everything waits.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) fn paused(test: impl AsyncFnOnce()) {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .enable_io()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let sweep = tokio::task::spawn_local(deadline::sweep());
        test().await;
        sweep.abort();
    });
}
