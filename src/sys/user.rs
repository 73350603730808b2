//! Users and groups of this machine.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};

/// A user, as `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
    /// Its login shell.
    pub shell: PathBuf,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir, shell: user.shell }
    }
}

/// Looks a user up by name.
pub fn account(name: &str) -> io::Result<Option<Account>> {
    Ok(User::from_name(name)?.map(Account::from))
}

/// Looks a user up by number; none if the machine does not know it.
pub fn account_of(uid: u32) -> io::Result<Option<Account>> {
    Ok(User::from_uid(Uid::from_raw(uid))?.map(Account::from))
}

/// The user this process runs as. One without an entry in `/etc/passwd` is named by its number and lives in `/`.
pub fn current() -> io::Result<Account> {
    let uid = Uid::effective();
    let known = account_of(uid.as_raw())?;
    Ok(known.unwrap_or_else(|| Account {
        name: uid.to_string(),
        uid: uid.as_raw(),
        gid: Gid::effective().as_raw(),
        home: PathBuf::from("/"),
        shell: PathBuf::from("/bin/sh"),
    }))
}

/// Looks a group up by name.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// Every group the user is in, the primary one too.
pub fn groups_of(account: &Account) -> io::Result<Vec<u32>> {
    let name = CString::new(account.name.as_str())?;
    let groups = nix::unistd::getgrouplist(&name, Gid::from_raw(account.gid))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

/// Whether this process may do anything.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes this user for good, with its groups. For a command that root runs on a plain user's state.
pub fn become_account(account: &Account) -> io::Result<()> {
    let groups: Vec<Gid> = groups_of(account)?.into_iter().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups)?;
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    // A change of user makes the kernel hide /proc/self from us, through which pinned files get their modes.
    Ok(nix::sys::prctl::set_dumpable(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_there_and_nonsense_is_not() {
        let root = account("root").expect("a look-up").expect("root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(account("no-such-user-here").expect("a look-up"), None);
        assert_eq!(group_id("no-such-group-here").expect("a look-up"), None);
        assert!(groups_of(&root).expect("groups").contains(&0));
        assert_eq!(current().expect("ourselves").uid, Uid::effective().as_raw());
    }
}
