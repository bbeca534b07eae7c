"""What early exits trade, and the rules that decide them."""
