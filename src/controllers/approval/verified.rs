//! Whether the API server proves that a vote is its voter's own: the shipped ValidatingAdmissionPolicy is there, as shipped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, PostParams};
use tracing::{info, warn};

use crate::api::admission;
use crate::controllers::context::Context;
use crate::error::Result;

/// Looks at the policy now and then.
pub struct Verifier {
    ctx: Arc<Context>,
    verified: AtomicBool,
}

impl Verifier {
    /// Nothing is verified before the first look.
    pub fn new(ctx: Arc<Context>) -> Self {
        Self { ctx, verified: AtomicBool::new(false) }
    }

    /// Whether votes through the Kubernetes API count.
    pub fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Acquire)
    }

    /// Looks again; whether that changed. What cannot be read proves nothing.
    pub async fn look(&self) -> bool {
        let found = match &self.ctx.approvals_policy {
            None => false,
            Some(name) => match self.is_in_force(name).await {
                Ok(found) => found,
                Err(error) => {
                    warn!(%error, "The policy for votes cannot be read: votes through the Kubernetes API do not count");
                    false
                }
            },
        };
        let changed = self.verified.swap(found, Ordering::AcqRel) != found;
        if changed {
            info!(verified = found, "Whether votes through the Kubernetes API count has changed");
        }
        changed
    }

    /// Whether votes through the Kubernetes API count at this moment.
    pub async fn looks_in_force(&self) -> bool {
        match &self.ctx.approvals_policy {
            Some(name) => self.is_in_force(name).await.unwrap_or_default(),
            None => false,
        }
    }

    async fn is_in_force(&self, name: &str) -> Result<bool> {
        let client = &self.ctx.client;
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        let (Some(policy), Some(binding)) = (policies.get_opt(name).await?, bindings.get_opt(name).await?) else {
            return Ok(false);
        };
        let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        let me = review.status.and_then(|status| status.user_info).and_then(|user| user.username).unwrap_or_default();
        Ok(admission::is_as_shipped(&policy, &binding, &me))
    }
}
