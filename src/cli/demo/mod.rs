//! `demo`: the main job on a temporary site, told while it happens, and every sentence checked on disk.
//!
//! A real repository, real hooks, signed webhooks over HTTP, the real service. Nothing outside of the temporary directory is
//! touched, and nothing leaves this machine.

mod stage;

use crate::app::orders::Asker;
use crate::app::{App, Service};
use crate::domain::deployment::{DeploymentId, StateName};
use crate::domain::name::SiteName;
use crate::store::Deployment;
use crate::sys::signals::Signals;

use super::serve::House;
use super::{CliError, asker_name, keep_signals, now, print, variable, wait_for_signal};

use stage::Stage;
pub(super) use stage::StageError;

pub(super) fn demo(once: bool) -> Result<(), CliError> {
    let signals = keep_signals()?;
    let stage = Stage::set()?;
    let service = Service::new(App::open(stage.config()?)?, &variable)?;
    let app = App::open(stage.config()?)?;
    let house = House::open(service)?;
    stage.listens_at(&house.url())?;
    let story = Story { stage: &stage, app, signals: &signals, url: house.url(), once };
    let told = story.tell().and_then(|()| if once { Ok(()) } else { stay(&stage, &house, &signals) });
    let closed = house.close(&signals);
    told.and(closed)
}

fn stay(stage: &Stage, house: &House, signals: &Signals) -> Result<(), CliError> {
    say(&format!(
        "\nThe service goes on at {}. In another terminal:\n  export LANDFALL_CONFIG={}\n  alias landfall='{}'\n  landfall \
         status; landfall deployments; landfall log 3; landfall deploy production\nPress Ctrl-C to end it and to remove \
         everything.",
        house.url(),
        stage.config_path().display(),
        std::env::current_exe().map_or_else(|_| "landfall".into(), |program| program.display().to_string())
    ))?;
    house.wait(signals).map(drop)
}

/// The story, chapter by chapter. Each ends with what has to be true now.
struct Story<'a> {
    stage: &'a Stage,
    app: App,
    signals: &'a Signals,
    url: String,
    once: bool,
}

impl Story<'_> {
    fn tell(&self) -> Result<(), CliError> {
        say(&format!(
            "A repository {}, a site {}, and Landfall at {}.",
            self.stage.origin().display(),
            self.stage.root().display(),
            self.url
        ))?;
        self.first_release()?;
        let second = self.second_release()?;
        let failed = self.failing_hook()?;
        self.redelivery(&second, &failed)?;
        self.rollback()?;
        say("\nAll of it came true.")
    }

    fn first_release(&self) -> Result<(), CliError> {
        title("1. The first push makes a release and points `current` at it")?;
        let commit = self.stage.push_version("one")?;
        let ended = self.deliver("demo-1", &commit, StateName::Succeeded)?;
        self.check("the page says version one", self.stage.page()?.contains("version one"))?;
        self.check("the hook after.pull has built it", self.stage.is_built()?)?;
        self.look(&ended)
    }

    /// Gives back the commit.
    fn second_release(&self) -> Result<String, CliError> {
        title("2. The second push replaces it, in one step")?;
        let before = self.stage.current()?;
        let commit = self.stage.push_version("two")?;
        let ended = self.deliver("demo-2", &commit, StateName::Succeeded)?;
        self.check("the page says version two", self.stage.page()?.contains("version two"))?;
        self.check("`current` names another release", self.stage.current()? != before)?;
        self.check("the first release is kept for a rollback", self.stage.releases()?.len() == 2)?;
        self.look(&ended)?;
        Ok(commit)
    }

    /// Gives back the commit.
    fn failing_hook(&self) -> Result<String, CliError> {
        title("3. A push whose hook fails: nothing has changed")?;
        let before = self.stage.current()?;
        let commit = self.stage.push_broken_version()?;
        let ended = self.deliver("demo-3", &commit, StateName::Failed)?;
        say(&format!("  why: {}", ended.reason.as_deref().unwrap_or("nobody knows")))?;
        self.check("`current` is what it was, to the letter", self.stage.current()? == before)?;
        self.check("the page still says version two", self.stage.page()?.contains("version two"))?;
        self.check("the half-made release is gone", self.stage.releases()?.len() == 2)?;
        self.check("the hook deploy.failure has run", self.stage.failures()?.lines().count() == 1)?;
        self.look(&ended)?;
        Ok(commit)
    }

    fn redelivery(&self, old: &str, failed: &str) -> Result<(), CliError> {
        title("4. The branch is repaired, and the forge sends the failed delivery again, then an old one")?;
        self.stage.push_version("three")?;
        let ended = self.deliver("demo-3", failed, StateName::Succeeded)?;
        self.check("what is live is the branch's tip, version three", self.stage.page()?.contains("version three"))?;
        let before = self.stage.current()?;
        self.deliver("demo-2", old, StateName::Current)?;
        self.check("the old delivery has not taken the site back", self.stage.current()? == before)?;
        self.look(&ended)
    }

    fn rollback(&self) -> Result<(), CliError> {
        title("5. A rollback, by the operator")?;
        let site = SiteName::parse(stage::SITE).map_err(|error| CliError::Untrue(error.to_string()))?;
        let asker = asker_name();
        let id = self.app.order_rollback(&site, None, false, Asker { name: &asker, now: now() })?;
        let ended = self.wait_for(id)?;
        self.check("the rollback has succeeded", ended.state == StateName::Succeeded)?;
        self.check("the page says version two again", self.stage.page()?.contains("version two"))?;
        let hold = self.app.site_report(&site)?.hold;
        self.check("the site is on hold, so that no push brings the bad release back", hold.is_some())?;
        let answer = self.stage.send(&self.url, "demo-4", &self.stage.push_version("four")?)?;
        say(&format!("  a push now: {} {}", answer.status, answer.body))?;
        self.check("the push is ignored", answer.body["status"] == "ignored")?;
        self.look(&ended)
    }

    /// Sends a signed push, follows its deployment, and checks how it ended.
    fn deliver(&self, key: &str, commit: &str, expected: StateName) -> Result<Deployment, CliError> {
        let answer = self.stage.send(&self.url, key, commit)?;
        say(&format!("  webhook {key} for {}: {} {}", &commit[..7], answer.status, answer.body))?;
        self.check("it is accepted", answer.status == 202)?;
        let id = answer.body["deployments"][0]["id"].as_i64().unwrap_or_default();
        let ended = self.wait_for(DeploymentId(id))?;
        self.check(&format!("the deployment ends as {expected}"), ended.state == expected)?;
        Ok(ended)
    }

    fn wait_for(&self, id: DeploymentId) -> Result<Deployment, CliError> {
        let mut ignore = |_: &_| Ok(());
        let ended = self.app.follow(id, &mut ignore, &mut |time| match wait_for_signal(self.signals, time)? {
            Some(_) => Err(CliError::Interrupted("the demo is not at its end".into())),
            None => Ok(true),
        })?;
        Ok(ended)
    }

    /// What is to be seen, while it is there to be seen.
    fn look(&self, ended: &Deployment) -> Result<(), CliError> {
        if self.once {
            return Ok(());
        }
        say(&format!("  look: ls -l {}; later: landfall log {}", self.stage.root().display(), ended.id))
    }

    fn check(&self, sentence: &str, is_true: bool) -> Result<(), CliError> {
        if is_true {
            return say(&format!("  true: {sentence}"));
        }
        Err(CliError::Untrue(format!("not true: {sentence}")))
    }
}

fn title(text: &str) -> Result<(), CliError> {
    say(&format!("\n{text}"))
}

fn say(text: &str) -> Result<(), CliError> {
    print(format!("{text}\n").as_bytes())
}
