"""What training costs, measured and modelled: for comparisons, and for the order of actions on several devices."""
