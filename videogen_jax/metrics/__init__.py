"""What is measured on images and videos."""
