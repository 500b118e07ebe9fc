# The events of a bucket go to a topic of Pub/Sub, which pushes them to Headwater with a signed token. The hook's address is
# a secret, and stands in Terraform's state.
terraform {
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 5.0"
    }
  }
}

variable "project" {
  type = string
}

provider "google" {
  project = var.project
}

data "google_storage_project_service_account" "agent" {}

resource "google_pubsub_topic" "events" {
  name = @{name}
}

# Cloud Storage may publish to this topic.
resource "google_pubsub_topic_iam_member" "storage" {
  topic  = google_pubsub_topic.events.id
  role   = "roles/pubsub.publisher"
  member = "serviceAccount:${data.google_storage_project_service_account.agent.email_address}"
}

resource "google_storage_notification" "events" {
  bucket             = @{bucket}
  topic              = google_pubsub_topic.events.id
  payload_format     = "JSON_API_V1"
  event_types        = ["OBJECT_FINALIZE", "OBJECT_DELETE", "OBJECT_ARCHIVE"]
  object_name_prefix = @{prefix}
  depends_on         = [google_pubsub_topic_iam_member.storage]
}

# An account without any right; its tokens only say who pushes.
resource "google_service_account" "pusher" {
  account_id   = @{name}
  display_name = "Pushes bucket events to Headwater"
}

resource "google_pubsub_subscription" "headwater" {
  name                 = @{name}
  topic                = google_pubsub_topic.events.id
  ack_deadline_seconds = 60
  push_config {
    push_endpoint = @{hook}
    oidc_token {
      service_account_email = google_service_account.pusher.email
      audience              = @{audience}
    }
  }
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }
  expiration_policy {
    ttl = ""
  }
}

# headwater events on DRIVER --push-account EMAIL
output "push_account" {
  value = google_service_account.pusher.email
}
