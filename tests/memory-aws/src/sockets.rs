//! The private addresses of tasks, as loopback addresses of this machine.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A listening socket on the port, at an address that is unused on this machine.
///
/// # Panics
/// When there is none.
pub fn socket_of_a_task(port: u16) -> (Ipv4Addr, TcpListener) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes run at the same time; each begins at another number.
    let first = std::process::id().wrapping_mul(257);
    for _ in 0..1000 {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, _, third, fourth] = number.to_be_bytes();
        let address = Ipv4Addr::new(127, 0, third, fourth);
        // The machine's own address, network addresses and broadcast addresses are left out. Each
        // number gives another address, so the unused one stays unused.
        if third == 0 || [0, 255].contains(&fourth) {
            continue;
        }
        if let Ok(socket) = TcpListener::bind((address, port)) {
            return (address, socket);
        }
    }
    panic!("no loopback address with a free port {port}");
}
