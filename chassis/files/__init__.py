"""Files: temporary files of uploads, storage in a folder or a bucket, and signed URLs."""
