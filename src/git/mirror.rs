//! The bare local copy of a repository, shared by its sites. Only Landfall writes it; it can be deleted at any time.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use git2::{AutotagOption, Direction, FetchOptions, Oid, Repository};

use crate::domain::push::RefName;
use crate::domain::revision::Revision;
use crate::sys::fs::{self, LockFile};
use crate::sys::tree;

use super::remote::{Session, find};
use super::{GitError, Remote, is_damage, local_ref};

/// An open mirror.
pub struct Mirror {
    pub(super) repository: Repository,
    path: PathBuf,
}

/// Where a ref was when it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// What the ref names: a commit, or an annotated tag, which is what forges tell of its moves.
    pub object: Revision,
    /// The commit: what can be checked out.
    pub commit: Revision,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Mirror").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Mirror {
    /// Opens the mirror, or makes an empty one. A damaged one is removed and made anew: everything in it can be fetched.
    pub fn open_or_create(path: &Path, cancelled: &dyn Fn() -> bool) -> Result<Self, GitError> {
        let _lock = lock(path, cancelled)?;
        match open(path) {
            Ok(repository) => Ok(Self { repository, path: path.to_owned() }),
            Err(error) => {
                if path.exists() {
                    log::warn!("mirror `{}` is damaged and made anew: {}", path.display(), error.message());
                }
                Self::create(path)
            }
        }
    }

    fn create(path: &Path) -> Result<Self, GitError> {
        let mirror_error = |source: io::Error| GitError::Mirror { path: path.to_owned(), source };
        tree::remove(path).and_then(|()| fs::make_directory(path, MIRROR_MODE)).map_err(mirror_error)?;
        let repository = Repository::init_bare(path).map_err(GitError::git("make a mirror"))?;
        Ok(Self { repository, path: path.to_owned() })
    }

    /// Fetches a ref and gives back where it is; none if the remote does not have it. Asks for no object that is there, and
    /// for no tags. If the mirror turns out to be damaged, it is made anew, once.
    pub fn fetch(
        &mut self,
        remote: &Remote<'_>,
        ref_name: &RefName,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Fetched>, GitError> {
        let _lock = lock(&self.path, cancelled)?;
        match self.fetch_once(remote, ref_name, cancelled) {
            Err(GitError::Git { operation, source }) if is_damage(&source) => {
                log::warn!(
                    "mirror `{}` is damaged and made anew: {operation}: {}",
                    self.path.display(),
                    source.message()
                );
                *self = Self::create(&self.path)?;
                self.fetch_once(remote, ref_name, cancelled)
            }
            result => result,
        }
    }

    /// Removes the mirror if this error says that it is damaged, so that the next fetch makes it anew.
    pub(super) fn remove_if_damaged(&self, error: &git2::Error) {
        if !is_damage(error) {
            return;
        }
        log::warn!("mirror `{}` is damaged and removed: {}", self.path.display(), error.message());
        let removed = lock(&self.path, &|| false).and_then(|_lock| {
            tree::remove(&self.path).map_err(|source| GitError::Mirror { path: self.path.clone(), source })
        });
        if let Err(error) = removed {
            log::error!("{error}");
        }
    }

    fn fetch_once(
        &self,
        remote: &Remote<'_>,
        ref_name: &RefName,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Fetched>, GitError> {
        let (asking, fetching) = (Session::default(), Session::default());
        let mut anonymous =
            self.repository.remote_anonymous(remote.url.as_str()).map_err(GitError::git("name the remote"))?;
        let listed = {
            let connection = anonymous
                .connect_auth(Direction::Fetch, Some(asking.callbacks(remote, cancelled)), None)
                .map_err(|error| asking.explain("fetch from", remote, error))?;
            find(connection.list().map_err(|error| asking.explain("fetch from", remote, error))?, ref_name)
        };
        if cancelled() {
            return Err(GitError::Cancelled);
        }
        let Some(listed) = listed else { return Ok(None) };
        let has_all = self.has_whole(&listed.commit) && self.repository.find_object(listed.object, None).is_ok();
        if !has_all {
            let mut options = FetchOptions::new();
            options.remote_callbacks(fetching.callbacks(remote, cancelled)).download_tags(AutotagOption::None);
            let refspec = format!("+{ref_name}:{}", local_ref(ref_name));
            anonymous
                .fetch(&[refspec], Some(&mut options), None)
                .map_err(|error| fetching.explain("fetch from", remote, error))?;
        }
        self.resolve(ref_name, listed.object).map(Some)
    }

    /// What was fetched is what counts: the branch may have moved since it was listed.
    fn resolve(&self, ref_name: &RefName, listed: Oid) -> Result<Fetched, GitError> {
        let failed = || GitError::git(format!("resolve `{ref_name}`"));
        let name = local_ref(ref_name);
        let object = match self.repository.refname_to_id(&name) {
            Ok(object) if self.repository.find_object(listed, None).is_err() => object,
            Ok(_) | Err(_) => listed,
        };
        let commit =
            self.repository.find_object(object, None).and_then(|object| object.peel_to_commit()).map_err(failed())?;
        self.repository.reference(&name, object, true, "fetched").map_err(failed())?;
        let revision = |oid: Oid| {
            let parsed = Revision::parse(&oid.to_string());
            parsed.map_err(|error| failed()(git2::Error::from_str(&error.to_string())))
        };
        Ok(Fetched { object: revision(object)?, commit: revision(commit.id())? })
    }

    /// Whether the commit and the objects it needs are here. A ref of ours that names it says so: it was set after they
    /// had arrived.
    fn has_whole(&self, revision: &Revision) -> bool {
        let Ok(oid) = Oid::from_str(revision.as_str()) else { return false };
        let kept = self.repository.references_glob("refs/landfall/*");
        let is_kept = kept.is_ok_and(|references| {
            references.flatten().any(|reference| reference.peel_to_commit().is_ok_and(|commit| commit.id() == oid))
        });
        is_kept && self.repository.find_commit(oid).and_then(|commit| commit.tree()).is_ok()
    }
}

fn open(path: &Path) -> Result<Repository, git2::Error> {
    let repository = Repository::open_bare(path)?;
    // What is kept has to be readable, or the next fetch would build on sand.
    for reference in repository.references_glob("refs/landfall/*")? {
        reference?.peel_to_tree()?;
    }
    Ok(repository)
}

/// Two deployments may want the same mirror; a fetch is short, so the second waits. What a killed writer has left locked is
/// free for whoever holds this.
fn lock(path: &Path, cancelled: &dyn Fn() -> bool) -> Result<LockFile, GitError> {
    let mirror_error = |source: io::Error| GitError::Mirror { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::make_directory(parent, MIRROR_MODE).map_err(mirror_error)?;
    }
    let name = path.with_extension("lock");
    loop {
        match LockFile::try_acquire(&name).map_err(mirror_error)? {
            Some(lock) => {
                remove_leftovers(path).map_err(mirror_error)?;
                return Ok(lock);
            }
            None if cancelled() => return Err(GitError::Cancelled),
            None => std::thread::sleep(LOCK_POLL),
        }
    }
}

/// Removes the lock files and half packs of a writer that was killed: libgit2 would wait for it for ever.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    let is_lock = |name: &str| name.ends_with(".lock");
    let is_half_pack = |name: &str| name.starts_with("pack_git2_") || name.starts_with("tmp_");
    let left = [
        fs::sweep(path, is_lock)?,
        fs::sweep(&path.join("refs/landfall"), is_lock)?,
        fs::sweep(&path.join("objects/pack"), is_half_pack)?,
    ];
    for path in left.concat() {
        log::warn!("removed `{}`, which a killed process had left", path.display());
    }
    Ok(())
}

/// For Landfall alone: a mirror may hold what its server shows to nobody else.
const MIRROR_MODE: u32 = 0o700;

/// How often a lock that another fetch holds is asked for.
const LOCK_POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::super::Credentials;
    use super::super::tests::{Origin, main_branch, mirror_path};
    use super::*;

    fn fetch_both(origin: &Origin, mirror: &mut Mirror, name: &RefName) -> Result<Option<Fetched>, GitError> {
        let (url, credentials) = (origin.url(), Credentials::default());
        mirror.fetch(&Remote { url: &url, credentials: &credentials }, name, &|| false)
    }

    fn fetch(origin: &Origin, mirror: &mut Mirror, name: &RefName) -> Result<Option<Revision>, GitError> {
        Ok(fetch_both(origin, mirror, name)?.map(|fetched| fetched.commit))
    }

    #[test]
    fn the_tip_is_what_a_pull_would_get() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        let first = origin.commit(&[("a", "1")]);
        let mut mirror = Mirror::open_or_create(&mirror_path(&directory), &|| false).expect("a mirror");
        assert_eq!(fetch(&origin, &mut mirror, &main_branch()).expect("a fetch"), Some(first.clone()));
        let second = origin.commit(&[("a", "2")]);
        assert_eq!(fetch(&origin, &mut mirror, &main_branch()).expect("a fetch"), Some(second));
        origin.git(&["reset", "-q", "--hard", first.as_str()]);
        assert_eq!(fetch(&origin, &mut mirror, &main_branch()).expect("a forced fetch"), Some(first.clone()));
        let url = origin.url();
        let remote = Remote { url: &url, credentials: &Credentials::default() };
        assert_eq!(super::super::tip(&remote, &main_branch()).expect("the tip"), Some(first));
    }

    #[test]
    fn a_ref_that_is_gone_is_none_also_when_it_was_there() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        origin.commit(&[("a", "1")]);
        origin.git(&["branch", "gone"]);
        let gone = RefName::parse("refs/heads/gone").expect("a ref");
        let mut mirror = Mirror::open_or_create(&mirror_path(&directory), &|| false).expect("a mirror");
        assert!(fetch(&origin, &mut mirror, &gone).expect("a fetch").is_some());
        origin.git(&["branch", "-q", "-D", "gone"]);
        assert_eq!(fetch(&origin, &mut mirror, &gone).expect("a fetch"), None);
    }

    #[test]
    fn an_annotated_tag_is_its_commit_and_the_tag_itself() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        let mut mirror = Mirror::open_or_create(&mirror_path(&directory), &|| false).expect("a mirror");
        let tag = RefName::parse("refs/tags/v1").expect("a ref");
        for content in ["1", "2"] {
            let commit = origin.commit(&[("a", content)]);
            origin.git(&["tag", "-f", "-a", "-m", "a tag", "v1"]);
            let object = Revision::parse(&origin.git(&["rev-parse", "v1"])).expect("the tag's id");
            assert_ne!(object, commit);
            let expected = Some(Fetched { object, commit: commit.clone() });
            assert_eq!(fetch_both(&origin, &mut mirror, &tag).expect("a fetch"), expected);
            // Also when nothing has to be fetched, and of a branch both are the same.
            assert_eq!(fetch_both(&origin, &mut mirror, &tag).expect("a fetch"), expected);
            let expected = Some(Fetched { object: commit.clone(), commit });
            assert_eq!(fetch_both(&origin, &mut mirror, &main_branch()).expect("a fetch"), expected);
        }
    }

    #[test]
    fn one_question_gives_the_tips_of_all_refs_that_are_there() {
        let origin = Origin::new();
        let first = origin.commit(&[("a", "1")]);
        origin.git(&["tag", "-a", "-m", "a tag", "v1"]);
        let second = origin.commit(&[("a", "2")]);
        let name = |text| RefName::parse(text).expect("a ref");
        let names = ["refs/heads/main", "refs/heads/gone", "refs/tags/v1", "refs/heads/v1"].map(name);
        let (url, credentials) = (origin.url(), Credentials::default());
        let tips = super::super::tips(&Remote { url: &url, credentials: &credentials }, &names).expect("an answer");
        let expected = [("refs/heads/main", second), ("refs/tags/v1", first)];
        assert_eq!(tips, expected.map(|(text, tip)| (name(text), tip)).into());
    }

    #[test]
    fn a_repository_that_is_gone_is_said_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mirror = Mirror::open_or_create(&mirror_path(&directory), &|| false).expect("a mirror");
        let origin = Origin::new();
        std::fs::remove_dir_all(origin.path().join(".git")).expect("a removal");
        let error = fetch(&origin, &mut mirror, &main_branch()).expect_err("an error");
        assert!(matches!(error, GitError::RepositoryNotFound { .. }), "{error}");
    }

    #[test]
    fn a_damaged_mirror_is_made_anew() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        let path = mirror_path(&directory);
        let commit = origin.commit(&[("a", "1"), ("b", "2")]);
        let damages: [fn(&Path); 3] = [
            |path| std::fs::remove_file(path.join("HEAD")).expect("a removal"),
            |path| {
                for pack in std::fs::read_dir(path.join("objects/pack")).expect("packs") {
                    let pack = pack.expect("a pack").path();
                    std::fs::remove_file(&pack).expect("a removal");
                    std::fs::write(pack, "not a pack").expect("a file");
                }
            },
            |path| std::fs::write(path.join("config"), "[[[").expect("a file"),
        ];
        for damage in damages {
            let mut mirror = Mirror::open_or_create(&path, &|| false).expect("a mirror");
            fetch(&origin, &mut mirror, &main_branch()).expect("a fetch");
            drop(mirror);
            damage(&path);
            let mut mirror = Mirror::open_or_create(&path, &|| false).expect("a mirror made anew");
            assert_eq!(fetch(&origin, &mut mirror, &main_branch()).expect("a fetch"), Some(commit.clone()));
        }
    }

    #[test]
    fn a_tag_on_a_commit_that_is_here_keeps_the_mirror() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        let commit = origin.commit(&[("a", "1")]);
        let path = mirror_path(&directory);
        let mut mirror = Mirror::open_or_create(&path, &|| false).expect("a mirror");
        fetch(&origin, &mut mirror, &main_branch()).expect("a fetch");
        std::fs::write(path.join("marker"), "").expect("a file");
        origin.git(&["tag", "-a", "-m", "a tag", "v1"]);
        let tag = RefName::parse("refs/tags/v1").expect("a ref");
        assert_eq!(fetch(&origin, &mut mirror, &tag).expect("a fetch"), Some(commit));
        assert!(path.join("marker").exists(), "the mirror was made anew");
    }

    #[test]
    fn what_a_killed_fetch_left_is_in_nobodys_way() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        origin.commit(&[("a", "1")]);
        let path = mirror_path(&directory);
        let mut mirror = Mirror::open_or_create(&path, &|| false).expect("a mirror");
        fetch(&origin, &mut mirror, &main_branch()).expect("a fetch");
        let left =
            [format!("{}.lock", local_ref(&main_branch())), "shallow.lock".into(), "objects/pack/pack_git2_x".into()];
        for name in &left {
            std::fs::write(path.join(name), "").expect("a file");
        }
        let tip = origin.commit(&[("a", "2")]);
        assert_eq!(fetch(&origin, &mut mirror, &main_branch()).expect("a fetch"), Some(tip));
        assert!(left.iter().all(|name| !path.join(name).exists()));
    }

    #[test]
    fn a_branch_may_have_a_name_as_long_as_a_file_may() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        let tip = origin.commit(&[("a", "1")]);
        let name = "b".repeat(200);
        origin.git(&["branch", &name]);
        let mut mirror = Mirror::open_or_create(&mirror_path(&directory), &|| false).expect("a mirror");
        let long = RefName::of_branch(&name).expect("a ref");
        assert_eq!(fetch(&origin, &mut mirror, &long).expect("a fetch"), Some(tip));
    }

    #[test]
    fn whoever_waits_for_another_fetch_can_be_cancelled() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = mirror_path(&directory);
        let _held = lock(&path, &|| false).expect("the lock");
        assert!(matches!(Mirror::open_or_create(&path, &|| true), Err(GitError::Cancelled)));
    }

    #[test]
    fn a_cancelled_fetch_ends() {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        origin.commit(&[("a", "1")]);
        let mut mirror = Mirror::open_or_create(&mirror_path(&directory), &|| false).expect("a mirror");
        let (url, credentials) = (origin.url(), Credentials::default());
        let error = mirror.fetch(&Remote { url: &url, credentials: &credentials }, &main_branch(), &|| true);
        assert!(matches!(error, Err(GitError::Cancelled)));
    }
}
