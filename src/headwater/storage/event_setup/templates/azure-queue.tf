# The events of a container go into a Storage Queue of its account, which Headwater reads.
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

# The object id of the service principal of the driver's integration; leave it out with an account key.
variable "reader" {
  type    = string
  default = ""
}

data "azurerm_storage_account" "bucket" {
  name                = @{account}
  resource_group_name = var.resource_group
}

resource "azurerm_storage_queue" "events" {
  name                 = @{name}
  storage_account_name = data.azurerm_storage_account.bucket.name
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
  storage_queue_endpoint {
    storage_account_id = data.azurerm_storage_account.bucket.id
    queue_name         = azurerm_storage_queue.events.name
  }
  retry_policy {
    max_delivery_attempts = 30
    event_time_to_live    = 1440
  }
}

# What Headwater has to be allowed.
resource "azurerm_role_assignment" "reader" {
  count                = var.reader == "" ? 0 : 1
  scope                = azurerm_storage_queue.events.resource_manager_id
  role_definition_name = "Storage Queue Data Message Processor"
  principal_id         = var.reader
}

# headwater events queue DRIVER QUEUE
output "queue" {
  value = azurerm_storage_queue.events.name
}
