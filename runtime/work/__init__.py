"""What scheduler and generations both speak of: work, ticket, slot, resident prefix, completion."""
