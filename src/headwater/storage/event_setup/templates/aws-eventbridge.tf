# The events of a bucket go to EventBridge, which sends them to Headwater. The hook's address is a secret, and stands in
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

# This is all of the bucket's notifications: others have to be named here, too.
resource "aws_s3_bucket_notification" "events" {
  bucket      = @{bucket}
  eventbridge = true
}

resource "aws_cloudwatch_event_rule" "events" {
  name          = @{name}
  event_pattern = @{pattern}
}

# A connection has to name a key. The address is the secret, so this one says nothing.
resource "aws_cloudwatch_event_connection" "headwater" {
  name               = @{name}
  authorization_type = "API_KEY"
  auth_parameters {
    api_key {
      key   = "X-Headwater-Driver"
      value = @{driver_id}
    }
  }
}

resource "aws_cloudwatch_event_api_destination" "headwater" {
  name                = @{name}
  connection_arn      = aws_cloudwatch_event_connection.headwater.arn
  invocation_endpoint = @{hook}
  http_method         = "POST"
}

# EventBridge may send to this destination, for this rule, and nothing else.
resource "aws_iam_role" "sender" {
  name = @{name}
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { ArnEquals = { "aws:SourceArn" = aws_cloudwatch_event_rule.events.arn } }
    }]
  })
}

resource "aws_iam_role_policy" "sender" {
  name = "send"
  role = aws_iam_role.sender.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "events:InvokeApiDestination"
      Resource = aws_cloudwatch_event_api_destination.headwater.arn
    }]
  })
}

resource "aws_cloudwatch_event_target" "headwater" {
  rule     = aws_cloudwatch_event_rule.events.name
  arn      = aws_cloudwatch_event_api_destination.headwater.arn
  role_arn = aws_iam_role.sender.arn
}
