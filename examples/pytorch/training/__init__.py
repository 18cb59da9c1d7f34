# SPDX-License-Identifier: MIT
"""What train.py is made of."""
