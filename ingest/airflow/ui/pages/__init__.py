"""The pages, a module for each: routes that check who asks, call one function and fill a template."""
