//! A journal that cannot be written: whatever it would have announced does not happen, and the live site stays.

use super::*;
use crate::domain::deployment::{Cause, DeploymentId, Failure, Kind, Outcome, Trigger};
use crate::domain::name::NodeName;
use crate::git::tests::Origin;
use crate::site::lock::SiteLock;
use crate::site::release;
use crate::store::Deployment;
use crate::sys::stop::Stop;
use crate::sys::user;

/// Refuses one line, or all from that one on.
#[derive(Default)]
struct Refusing {
    entries: Vec<Entry>,
    asked: usize,
    refused: Option<usize>,
    for_ever: bool,
}

impl Journal for Refusing {
    fn append(&mut self, entry: Entry) -> Result<(), StoreError> {
        self.asked += 1;
        let refuses = self.refused.is_some_and(|at| self.asked == at || (self.for_ever && self.asked > at));
        if refuses {
            return Err(StoreError::Corrupt("no room".into()));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

struct House {
    origin: Origin,
    directory: tempfile::TempDir,
    target: Target,
}

impl House {
    fn new() -> Self {
        let (origin, directory) = (Origin::new(), tempfile::tempdir().expect("a directory"));
        let path = directory.path();
        let site = SiteName::parse("blog").expect("a name");
        let account = user::current().expect("a user");
        let target = Target {
            disk: SiteDisk::new(path.join("root"), path.join("state"), site.clone()),
            ownership: Ownership { owner: account.uid, group: account.gid, run_as: account.uid, change: false },
            identity: None,
            home: path.to_owned(),
            source: Source {
                name: RepositoryName::parse("blog").expect("a name"),
                identity: "acme/blog".into(),
                url: origin.url(),
                credentials: Credentials::default(),
                mirror: path.join("state/repositories/blog.git"),
            },
            refs: RefRule::Branch(RefName::of_branch("main").expect("a branch")),
            branch: Some(RefName::of_branch("main").expect("a branch")),
            environment: "blog".into(),
            keep: 5,
            release_style: ReleaseStyle::Timestamp,
            hooks_dir: None,
            hook_timeout: Duration::from_secs(60),
            allow_failure: BTreeSet::new(),
            activate: Activate::First,
            executable: Executable::Keep,
            env_file: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            shared: Vec::new(),
            logs: path.join("logs"),
            account,
            site,
        };
        Self { origin, directory, target }
    }

    /// Deploys, and undoes what failed; true if the release went live.
    fn deploy(&self, journal: &mut Refusing) -> bool {
        let deployment = Deployment {
            id: DeploymentId(1),
            site: self.target.site.clone(),
            node: NodeName::parse("web1").expect("a name"),
            kind: Kind::Deploy,
            trigger: Trigger::Manual,
            state: crate::domain::deployment::StateName::Running,
            step: None,
            reason: None,
            ref_name: None,
            before: None,
            after: None,
            commit: None,
            release: None,
            rollback_to: None,
            force: true,
            attempt: 1,
            retry_of: None,
            superseded_by: None,
            requested_by: None,
            delivery: None,
            queued_at: DateTime::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
        };
        let lock = SiteLock::try_acquire(&self.target.disk).expect("a lock").expect("nobody else");
        let mut run = Run {
            target: &self.target,
            deployment: &deployment,
            lock: &lock,
            stop: &Stop::new(),
            on_stop: Cause::Interrupted,
            journal,
            clock: || DateTime::UNIX_EPOCH,
            newest_release: None,
            previous: None,
        };
        match deploy::deploy(&mut run) {
            Ok(_) => true,
            Err(failure) => {
                let outcome = undo::undo_all(&mut run, failure);
                assert!(matches!(outcome, Outcome::Failed(Failure { .. })), "{outcome:?}");
                false
            }
        }
    }

    fn live(&self) -> Option<String> {
        current::read(&self.target.disk).expect("a look")
    }

    fn releases(&self) -> usize {
        std::fs::read_dir(self.target.disk.releases()).expect("releases").count()
    }
}

#[test]
fn what_the_journal_does_not_take_does_not_happen() {
    let house = House::new();
    house.origin.commit(&[("index.html", "one"), (".landfall/after.deploy", "true"), (".landfall/after.pull", "true")]);
    let mut whole = Refusing::default();
    assert!(house.deploy(&mut whole));
    let (live, lines) = (house.live(), whole.asked);
    assert!(lines > 10, "{:?}", whole.entries);
    for (refused, for_ever) in (1..=lines).flat_map(|line| [(line, false), (line, true)]) {
        let mut journal = Refusing { refused: Some(refused), for_ever, ..Refusing::default() };
        let went_live = house.deploy(&mut journal);
        // Only the last line, which announces the pruning, is not worth a release.
        assert_eq!(went_live, refused == lines, "line {refused}: {:?}", journal.entries);
        if went_live {
            continue;
        }
        assert_eq!(house.live(), live, "line {refused}");
        assert_eq!(house.releases(), 1, "line {refused}");
        assert!(release::list(&house.target.disk).expect("releases").len() == 1, "line {refused}");
    }
    assert!(house.directory.path().join("logs").is_dir());
}
