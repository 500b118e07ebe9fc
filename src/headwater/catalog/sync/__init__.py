"""What a sync knows: its scan and key ranges, the merge of listings, the verdict on what is missing."""
