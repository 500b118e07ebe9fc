# The events of a container go to Headwater by Event Grid. Switch the driver's events on first: Event Grid asks the address at
# once whether it wants them. The hook's address is a secret, and stands in Terraform's state.
terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.0"
    }
  }
}

provider "azurerm" {
  features {}
}

variable "resource_group" {
  type = string
}

data "azurerm_storage_account" "bucket" {
  name                = @{account}
  resource_group_name = var.resource_group
}

resource "azurerm_eventgrid_event_subscription" "headwater" {
  name                  = @{name}
  scope                 = data.azurerm_storage_account.bucket.id
  event_delivery_schema = "EventGridSchema"
  included_event_types  = @{event_types}
  subject_filter {
    subject_begins_with = @{subject}
    case_sensitive      = true
  }
  webhook_endpoint {
    url = @{hook}
  }
  retry_policy {
    max_delivery_attempts = 30
    event_time_to_live    = 1440
  }
}
