//! Whose children processes are whose parents have ended.
use std::io;

use rustix::process::{getpid, set_child_subreaper};

/// From now on such processes below this one are its own children, and no longer those of PID 1; or no longer so. It
/// counts for the whole process, and not for its children.
pub fn adopt_orphans(wanted: bool) -> io::Result<()> {
    Ok(set_child_subreaper(wanted.then(getpid))?)
}
