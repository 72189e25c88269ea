//! A child of `calamus dev` must not outlive it, however it ends.
//!
//! The parent names itself in [`VARIABLE`]; the child asks the system to be killed when the parent dies (Linux), and
//! looks by itself twice a second where the system cannot do that. Killing is safe: a node may lose power at any time.

use rustix::process::{Pid, getppid};

/// Holds the process id of the parent that this process must not outlive.
pub const VARIABLE: &str = "CALAMUS_PARENT";

/// Ties this process to the parent named in the environment, if there is one. Ends the process if it is gone already.
pub fn tie() {
    let Some(parent) = std::env::var(VARIABLE).ok().and_then(|text| text.parse::<i32>().ok()).and_then(Pid::from_raw)
    else {
        return;
    };
    ask_the_system();
    // The parent may have died before the system was asked.
    if getppid() != Some(parent) {
        eprintln!("calamus: the process {parent:?} that started this node is gone; ending");
        std::process::exit(1);
    }
    if !cfg!(target_os = "linux") {
        watch(parent);
    }
}

#[cfg(target_os = "linux")]
fn ask_the_system() {
    // A process that is stopped takes no other signal than this one.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

#[cfg(not(target_os = "linux"))]
fn ask_the_system() {}

fn watch(parent: Pid) {
    std::thread::spawn(move || {
        while getppid() == Some(parent) {
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        std::process::exit(1);
    });
}
