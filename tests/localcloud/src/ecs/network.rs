//! Private addresses for tasks. Each task has its own loopback address.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

/// The port on the first address of a network that stays bound while the network is in use, so that
/// another local cloud on this machine takes another network.
const CLAIM_PORT: u16 = 61_080;

/// A /24 network in 127.0.0.0/8 that no other local cloud on this machine uses.
#[derive(Debug)]
pub struct LoopbackNetwork {
    prefix: [u8; 2],
    hosts: Mutex<Hosts>,
    _claim: TcpListener,
}

#[derive(Debug)]
struct Hosts {
    in_use: [bool; 256],
    next: u8,
}

impl LoopbackNetwork {
    /// Takes a network that is not in use.
    ///
    /// # Errors
    /// If 100 attempts fail, which means that loopback addresses other than 127.0.0.1 do not work on this
    /// machine.
    pub fn claim() -> io::Result<Self> {
        const ATTEMPTS: usize = 100;
        let mut last_error = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
            // Other programs use addresses in 127.0.x.x.
            let prefix = [a.max(1), b];
            let first = Ipv4Addr::new(127, prefix[0], prefix[1], 1);
            match TcpListener::bind((first, CLAIM_PORT)) {
                Ok(claim) => {
                    return Ok(LoopbackNetwork {
                        prefix,
                        hosts: Mutex::new(Hosts {
                            in_use: [false; 256],
                            next: 2,
                        }),
                        _claim: claim,
                    });
                }
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// An address on which all of `ports` are free. `None` if the network is full. Addresses are used in
    /// turn, so that a released address is not used again soon.
    pub fn allocate(&self, ports: &[u16]) -> Option<Ipv4Addr> {
        let mut hosts = self.hosts.lock().ok()?;
        for _ in 2..=254 {
            let host = hosts.next;
            hosts.next = if host >= 254 { 2 } else { host + 1 };
            let address = self.address(host);
            let free = !hosts.in_use[usize::from(host)]
                && ports
                    .iter()
                    .all(|port| TcpListener::bind((address, *port)).is_ok());
            if free {
                hosts.in_use[usize::from(host)] = true;
                return Some(address);
            }
        }
        None
    }

    pub fn release(&self, address: Ipv4Addr) {
        if let Ok(mut hosts) = self.hosts.lock() {
            hosts.in_use[usize::from(address.octets()[3])] = false;
        }
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.prefix[0], self.prefix[1], host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn two_networks_and_two_tasks_have_different_addresses() {
        let (one, other) = (
            LoopbackNetwork::claim().unwrap(),
            LoopbackNetwork::claim().unwrap(),
        );
        let addresses: HashSet<_> = [&one, &one, &other, &other]
            .map(|network| network.allocate(&[8000]).unwrap())
            .into_iter()
            .collect();
        assert_eq!(addresses.len(), 4);
    }

    #[test]
    fn an_address_whose_port_is_taken_is_skipped() {
        let network = LoopbackNetwork::claim().unwrap();
        let second = network.address(2);
        let _other_program = TcpListener::bind((second, 8000)).unwrap();
        assert_ne!(network.allocate(&[8000]), Some(second));
    }

    #[test]
    fn a_full_network_gives_no_address_until_one_is_released() {
        let network = LoopbackNetwork::claim().unwrap();
        let first = network.allocate(&[]).unwrap();
        while network.allocate(&[]).is_some() {}
        network.release(first);
        assert_eq!(network.allocate(&[]), Some(first));
    }
}
