"""The CD/DVD-ROM drive (MMC-6)."""
