//! The hooks a repository can bring, by the names of their files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A hook: a file of this name in the repository's hooks directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HookName {
    /// Before the fetch, from the current release; its exit status is ignored by default.
    BeforePull,
    /// In the new release, after the checkout: `composer install`, `npm ci`.
    AfterPull,
    /// In the new release, the last one before permissions and flip: migrations.
    BeforeDeploy,
    /// In the new release, after the flip.
    AfterDeploy,
    /// In the new release, when everything else went well.
    DeploySuccess,
    /// When the deployment failed; its exit status changes nothing.
    DeployFailure,
    /// From the current release, before a rollback's flip.
    RollbackBefore,
    /// From the release that was current when the rollback started, after its flip.
    RollbackAfter,
}

impl HookName {
    /// Every hook, in the order of a deployment.
    pub const ALL: [Self; 8] = [
        Self::BeforePull,
        Self::AfterPull,
        Self::BeforeDeploy,
        Self::AfterDeploy,
        Self::DeploySuccess,
        Self::DeployFailure,
        Self::RollbackBefore,
        Self::RollbackAfter,
    ];

    /// The file below the hooks directory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforePull => "before.pull",
            Self::AfterPull => "after.pull",
            Self::BeforeDeploy => "before.deploy",
            Self::AfterDeploy => "after.deploy",
            Self::DeploySuccess => "deploy.success",
            Self::DeployFailure => "deploy.failure",
            Self::RollbackBefore => "rollback/before",
            Self::RollbackAfter => "rollback/after",
        }
    }

    /// Reads the name of a hook file.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.as_str() == text)
    }
}

impl fmt::Display for HookName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl TryFrom<String> for HookName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is no hook"))
    }
}

impl From<HookName> for String {
    fn from(hook: HookName) -> Self {
        hook.as_str().to_owned()
    }
}
