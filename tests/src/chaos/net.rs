//! Networks of their own for the processes of a run, which can be cut one way or both.
//!
//! Each process lives in a network namespace with one link to a hub, which forwards. A blackhole route
//! drops what goes one way only; taking the link down cuts both ways at once and flushes routes, so a
//! two-way cut is two blackholes. Packets vanish, as they do on a broken network: no end is told.

use std::process::{Command, Stdio};

/// Namespaces with a hub between them; removed when it is dropped.
#[derive(Debug)]
pub struct Net {
    prefix: String,
    names: Vec<String>,
}

/// Which way packets vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Those to the process.
    In,
    /// Those from it.
    Out,
    /// Both.
    Both,
}

impl Net {
    /// A namespace for each of these processes.
    ///
    /// # Errors
    /// What this machine does not allow, or lacks.
    pub fn new(names: &[String]) -> Result<Self, String> {
        let net = Self { prefix: format!("sl{}", std::process::id()), names: names.to_vec() };
        let hub = net.namespace("hub");
        ip(&["netns", "add", &hub]).map_err(|error| {
            format!("network namespaces take root and the `ip` command (Debian: iproute2): {error}")
        })?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", &hub, "sh", "-c", forward])?;
        for (place, name) in names.iter().enumerate() {
            let (own, port) = (net.namespace(name), format!("p{place}"));
            ip(&["netns", "add", &own])?;
            ip(&[
                "link", "add", &port, "netns", &hub, "type", "veth", "peer", "eth0", "netns", &own,
            ])?;
            let gateway = format!("10.77.{place}.1");
            ip(&["-n", &hub, "addr", "add", &format!("{gateway}/30"), "dev", &port])?;
            ip(&["-n", &own, "addr", "add", &format!("{}/30", net.address(name)), "dev", "eth0"])?;
            ip(&["-n", &hub, "link", "set", &port, "up"])?;
            ip(&["-n", &own, "link", "set", "eth0", "up"])?;
            ip(&["-n", &own, "link", "set", "lo", "up"])?;
            ip(&["-n", &own, "route", "add", "default", "via", &gateway])?;
        }
        Ok(net)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The address of a process.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        let place = self.names.iter().position(|known| known == name);
        format!("10.77.{}.2", place.expect("a process of this net"))
    }

    /// What runs a command in that process's namespace, in front of it. The process that was started
    /// becomes the command, so signals reach it.
    #[must_use]
    pub fn command(&self, name: &str) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace(name)].map(str::to_owned).to_vec()
    }

    /// Cuts a process off all others.
    ///
    /// # Panics
    /// When the route cannot be set.
    pub fn cut(&self, name: &str, cut: Cut) {
        self.change("add", name, cut);
    }

    /// Ends that cut.
    ///
    /// # Panics
    /// When it was not cut.
    pub fn heal(&self, name: &str, cut: Cut) {
        self.change("del", name, cut);
    }

    /// Parts two processes, which go on reaching all others.
    ///
    /// # Panics
    /// When the route cannot be set.
    pub fn part(&self, one: &str, other: &str) {
        self.between("add", one, other);
    }

    /// Ends that.
    ///
    /// # Panics
    /// When they were not parted.
    pub fn join(&self, one: &str, other: &str) {
        self.between("del", one, other);
    }

    fn between(&self, what: &str, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            let (own, to) = (self.namespace(from), format!("{}/32", self.address(to)));
            ip(&["-n", &own, "route", what, "blackhole", &to]).expect("a route is set");
        }
    }

    fn change(&self, what: &str, name: &str, cut: Cut) {
        let hub = self.namespace("hub");
        if cut != Cut::Out {
            let to = format!("{}/32", self.address(name));
            ip(&["-n", &hub, "route", what, "blackhole", &to]).expect("a route is set");
        }
        if cut != Cut::In {
            // Two halves of everything beat the default route and the other's link.
            for half in ["0.0.0.0/1", "128.0.0.0/1"] {
                let own = self.namespace(name);
                ip(&["-n", &own, "route", what, "blackhole", half]).expect("a route is set");
            }
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in self.names.iter().map(String::as_str).chain(["hub"]) {
            let _was_not_made = ip(&["netns", "del", &self.namespace(name)]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let run = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = run.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), said.trim()))
}
