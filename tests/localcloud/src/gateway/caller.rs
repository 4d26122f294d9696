//! The function at the other end of a connection: a child process of MiniStack, identified by the
//! environment variables that Lambda sets.
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime>

use std::{ffi::OsStr, net::SocketAddr};

use procfs::{
    net::{TcpNetEntry, tcp},
    process::{FDTarget, Process, all_processes},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::OnceCell;

/// How often the kernel's table of sockets is read until it contains the socket.
const ATTEMPTS: u32 = 10;

/// A connection from a client to the gateway, seen from the client.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

/// The running process of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionProcess {
    pub function: String,
    pid: i32,
}

impl FunctionProcess {
    /// The function whose process holds the `from` end of the connection. `None` if another process
    /// holds it.
    pub fn at(far_end: Connection) -> Option<Self> {
        // The kernel's table can miss a socket while others are opened and closed.
        let inode = (0..ATTEMPTS).find_map(|_| inode(far_end))?;
        // A process that ends during the search is skipped.
        all_processes()
            .ok()?
            .flatten()
            .filter_map(|process| Some((function(&process)?, process)))
            .find(|(_, process)| holds(process, inode))
            .map(|(function, process)| Self {
                function,
                pid: process.pid(),
            })
    }

    /// Kills the process with SIGKILL, as Lambda does when a function runs out of memory.
    pub fn kill(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // An error means that the process has already ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The client of a connection. The lookup happens at the first request for it and is cached.
#[derive(Debug)]
pub struct Peer {
    connection: Connection,
    function: OnceCell<Option<FunctionProcess>>,
}

impl Peer {
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            function: OnceCell::new(),
        }
    }

    /// The function that calls; `None` if the client is not a function.
    pub async fn function(&self) -> Option<&FunctionProcess> {
        let connection = self.connection;
        let find = async || {
            let found = tokio::task::spawn_blocking(move || FunctionProcess::at(connection));
            found.await.unwrap_or_default()
        };
        self.function.get_or_init(find).await.as_ref()
    }
}

fn inode(Connection { from, to }: Connection) -> Option<u64> {
    let entries = tcp().ok()?;
    // The table can contain closed connections of the same port, which have no inode.
    let is_match = |entry: &TcpNetEntry| {
        entry.local_address == from && entry.remote_address == to && entry.inode != 0
    };
    Some(entries.into_iter().find(is_match)?.inode)
}

fn function(process: &Process) -> Option<String> {
    let environment = process.environ().ok()?;
    let name = environment.get(OsStr::new("AWS_LAMBDA_FUNCTION_NAME"))?;
    Some(name.to_str()?.to_owned())
}

fn holds(process: &Process, inode: u64) -> bool {
    let Ok(descriptors) = process.fd() else {
        return false;
    };
    descriptors
        .flatten()
        .any(|descriptor| descriptor.target == FDTarget::Socket(inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::TcpListener,
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
    };

    /// A process that connects to the address and waits, with these variables in its environment.
    fn connected(address: SocketAddr, variables: &[(&str, &str)]) -> std::process::Child {
        let script = format!("exec 3<>/dev/tcp/{}/{}; read", address.ip(), address.port());
        Command::new("bash")
            .args(["-c", &script])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    }

    #[test]
    fn the_process_of_a_function_is_found_by_its_connection_and_can_be_killed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = [("AWS_LAMBDA_FUNCTION_NAME", "test-create-service")];
        let mut child = connected(listener.local_addr().unwrap(), &name);
        let (_stream, from) = listener.accept().unwrap();
        let to = listener.local_addr().unwrap();
        let found = FunctionProcess::at(Connection { from, to }).unwrap();
        assert_eq!(found.function, "test-create-service");
        assert_eq!(found.pid, child.id() as i32);
        found.kill();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_process_that_is_not_a_function_is_not_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = connected(listener.local_addr().unwrap(), &[]);
        let (_stream, from) = listener.accept().unwrap();
        let to = listener.local_addr().unwrap();
        assert_eq!(FunctionProcess::at(Connection { from, to }), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
