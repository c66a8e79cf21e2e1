//! Arguments, allocator, exit code; nothing else.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hostler::cli::main(give_back)
}

/// Gives memory that was freed back to the system: of the calling thread, and of threads that have ended.
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: `mi_collect` takes no pointer and may be called at any time by any thread; memory in use is not touched.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
