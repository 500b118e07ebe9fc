# The events of a bucket go into a queue of SQS, which Headwater reads.
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

provider "aws" {
  region = @{region}
}

data "aws_caller_identity" "here" {}

resource "aws_sqs_queue" "dead" {
  name                      = @{dead_name}
  message_retention_seconds = 1209600
}

resource "aws_sqs_queue" "events" {
  name                       = @{name}
  message_retention_seconds  = 1209600
  visibility_timeout_seconds = 60
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = 5
  })
}

# Only this bucket may put messages into it.
resource "aws_sqs_queue_policy" "events" {
  queue_url = aws_sqs_queue.events.url
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.events.arn
      Condition = {
        ArnEquals    = { "aws:SourceArn" = @{bucket_arn} }
        StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.here.account_id }
      }
    }]
  })
}

# This is all of the bucket's notifications: others have to be named here, too.
resource "aws_s3_bucket_notification" "events" {
  bucket = @{bucket}
  queue {
    id            = @{name}
    queue_arn     = aws_sqs_queue.events.arn
    events        = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"]
    filter_prefix = @{filter_prefix}
  }
  depends_on = [aws_sqs_queue_policy.events]
}

# What Headwater has to be allowed: attach it to the user or role of the driver's integration.
resource "aws_iam_policy" "reader" {
  name = @{name}
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      Resource = aws_sqs_queue.events.arn
    }]
  })
}

# headwater events queue DRIVER QUEUE-URL
output "queue_url" {
  value = aws_sqs_queue.events.url
}

output "reader_policy_arn" {
  value = aws_iam_policy.reader.arn
}
