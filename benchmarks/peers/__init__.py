"""What others would do the same job with: every reader sees every result, nothing is lost.

Each has ``publish(job, readers, every_s=...) -> Measure``, with readers in processes of their own,
bounded memory, and the same work per result as the logger of the benchmarks.
"""
