"""The student stage: plan and stream clips, distillers, the loop, checkpoints. Reads the cache, never a teacher."""
