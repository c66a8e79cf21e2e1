//! What the other end of a stream socket has not read yet: the one thing that only `ioctl` tells.

use rustix::fd::AsFd;

/// Bytes of kernel memory held by what the other end has not read; `None` where the kernel does not tell.
///
/// SIOCOUTQ on a unix stream socket counts the buffers that this end has filled and the other has not emptied: each
/// whole until its last byte is read, with the kernel's own overhead (so at least some hundred bytes for one byte).
/// Looking without taking (`MSG_PEEK`) empties nothing. On a TCP socket it is the bytes that the other end has not
/// acknowledged, sent or not.
#[allow(unsafe_code)]
pub(super) fn unread(socket: impl AsFd) -> Option<u32> {
    use rustix::ioctl::{Getter, Opcode, ioctl};
    /// `include/uapi/asm-generic/ioctls.h`, which the architectures above share (TIOCOUTQ there, SIOCOUTQ for sockets).
    const SIOCOUTQ: Opcode = 0x5411;
    let is_known = cfg!(all(
        target_os = "linux",
        any(
            target_arch = "x86",
            target_arch = "x86_64",
            target_arch = "arm",
            target_arch = "aarch64",
            target_arch = "riscv64"
        )
    ));
    if !is_known {
        return None;
    }
    // SAFETY: the opcode is that of the architectures above. Every file to which it means something writes one C `int`
    // (net/unix/af_unix.c: `put_user(amount, (int __user *)arg)`; the same for TCP, and for terminals), which is an
    // `i32` on all of them, into memory that `Getter` owns for the length of the call; any other file answers with an
    // error and writes nothing, and rustix reads the memory only after success. The descriptor is borrowed meanwhile.
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) };
    bytes.ok().and_then(|bytes| u32::try_from(bytes).ok())
}
