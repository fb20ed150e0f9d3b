"""`ropewalk bounds`: what the theory promises for one size of head, in numbers and in words."""
