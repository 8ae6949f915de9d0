"""Devices, driver, router and prober that obey a script: for simulations and plugin authors."""
