# The events of a bucket go to a topic of SNS, which sends them to Headwater. The hook's address is a secret, and stands in
# Terraform's state.
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

resource "aws_sns_topic" "events" {
  name = @{name}
}

# Only this bucket may publish to it.
resource "aws_sns_topic_policy" "events" {
  arn = aws_sns_topic.events.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "s3.amazonaws.com" }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.events.arn
      Condition = {
        ArnEquals    = { "aws:SourceArn" = @{bucket_arn} }
        StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.here.account_id }
      }
    }]
  })
}

# Headwater confirms the subscription by itself.
resource "aws_sns_topic_subscription" "headwater" {
  topic_arn              = aws_sns_topic.events.arn
  protocol               = @{protocol}
  endpoint               = @{hook}
  endpoint_auto_confirms = true
}

# This is all of the bucket's notifications: others have to be named here, too.
resource "aws_s3_bucket_notification" "events" {
  bucket = @{bucket}
  topic {
    id            = @{name}
    topic_arn     = aws_sns_topic.events.arn
    events        = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"]
    filter_prefix = @{filter_prefix}
  }
  depends_on = [aws_sns_topic_policy.events]
}
